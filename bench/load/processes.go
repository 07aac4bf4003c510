package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticksPerSecond is the unit of /proc/PID/stat; Linux has the same one on every architecture.
const ticksPerSecond = 100

// process is a process whose CPU time is reported under a name, with its children's.
type process struct {
	name string
	pid  int
}

func parseProcesses(text string) ([]process, error) {
	var found []process
	for _, item := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		name, number, _ := strings.Cut(item, "=")
		pid, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("%q is not name=pid", item)
		}
		found = append(found, process{name, pid})
	}
	return found, nil
}

// cpuSeconds says for each name how much CPU time its process and all below it have spent so far.
func cpuSeconds(processes []process) map[string]float64 {
	spent := map[string]float64{}
	for _, p := range processes {
		spent[p.name] += float64(ticksOf(p.pid)) / ticksPerSecond
	}
	return spent
}

func ticksOf(pid int) (ticks int64) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, field := range fields[11:13] {
		n, _ := strconv.ParseInt(field, 10, 64)
		ticks += n
	}
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, thread := range threads {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name()))
		for _, child := range strings.Fields(string(children)) {
			n, _ := strconv.Atoi(child)
			ticks += ticksOf(n)
		}
	}
	return ticks
}

// Command load puts one workload on one OCI registry and prints one line of JSON: what a client saw, and the CPU
// seconds that the named processes spent meanwhile. Payloads are made and hashed before the clock starts.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

// workload is one operation to repeat; prepare runs before the clock starts.
type workload struct {
	prepare func() error
	run     func(i int) (bytes int64, err error)
}

type options struct {
	url, work, repository, tag string
	count, parallel, layers    int
	size                       int64
}

type result struct {
	Work      string             `json:"work"`
	Count     int                `json:"count"`
	Seconds   float64            `json:"seconds"`
	PerSecond float64            `json:"per_second"`
	MBytes    float64            `json:"megabytes_per_second"`
	P50       float64            `json:"p50_ms"`
	P99       float64            `json:"p99_ms"`
	Failures  int                `json:"failures"`
	Error     string             `json:"error,omitempty"`
	CPU       map[string]float64 `json:"cpu_seconds"`
}

func main() {
	o := options{}
	var size, pids string
	flag.StringVar(&o.url, "url", "http://127.0.0.1:5045", "base URL of the registry")
	flag.StringVar(&o.work, "work", "push-docker", strings.Join(names(), " | "))
	flag.StringVar(&o.repository, "repository", "bench/load", "repository to work in")
	flag.StringVar(&o.tag, "tag", "t"+strconv.FormatInt(time.Now().UnixNano(), 36), "first part of the tags that are pushed")
	flag.IntVar(&o.count, "count", 8, "operations")
	flag.IntVar(&o.parallel, "parallel", 4, "operations at once")
	flag.IntVar(&o.layers, "layers", 1, "layers of an image")
	flag.StringVar(&size, "size", "10M", "bytes of a layer, with K, M or G")
	flag.StringVar(&pids, "pids", "", "name=pid,...: processes whose CPU time, with their children's, is reported")
	flag.Parse()
	var err error
	if o.size, err = parseSize(size); err != nil {
		fail(err)
	}
	build, found := workloads[o.work]
	if !found {
		fail(fmt.Errorf("there is no workload %q", o.work))
	}
	processes, err := parseProcesses(pids)
	if err != nil {
		fail(err)
	}
	w := build(newRegistry(o.url), o)
	if err := w.prepare(); err != nil {
		fail(fmt.Errorf("preparing %s: %w", o.work, err))
	}
	r := measure(w, o, processes)
	json.NewEncoder(os.Stdout).Encode(r)
	if r.Failures > 0 {
		os.Exit(1)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(2)
}

// measure repeats the operation o.count times, o.parallel at once.
func measure(w workload, o options, processes []process) result {
	taken := make([]float64, o.count)
	failures := make([]error, o.count)
	sizes := make([]int64, o.count)
	before := cpuSeconds(processes)
	next := make(chan int)
	var workers sync.WaitGroup
	began := time.Now()
	for range min(o.parallel, o.count) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for i := range next {
				start := time.Now()
				sizes[i], failures[i] = w.run(i)
				taken[i] = float64(time.Since(start).Microseconds()) / 1000
			}
		}()
	}
	for i := range o.count {
		next <- i
	}
	close(next)
	workers.Wait()
	seconds := time.Since(began).Seconds()
	after := cpuSeconds(processes)

	r := result{Work: o.work, Count: o.count, Seconds: seconds, PerSecond: float64(o.count) / seconds, CPU: map[string]float64{}}
	for _, p := range processes {
		r.CPU[p.name] = after[p.name] - before[p.name]
	}
	var total int64
	for i := range o.count {
		total += sizes[i]
		if failures[i] != nil {
			r.Failures++
			r.Error = failures[i].Error()
		}
	}
	r.MBytes = float64(total) / 1e6 / seconds
	sort.Float64s(taken)
	r.P50, r.P99 = taken[o.count/2], taken[o.count*99/100]
	return r
}

func parseSize(text string) (int64, error) {
	shift := 0
	switch {
	case strings.HasSuffix(text, "K"):
		shift = 10
	case strings.HasSuffix(text, "M"):
		shift = 20
	case strings.HasSuffix(text, "G"):
		shift = 30
	}
	n, err := strconv.ParseInt(strings.TrimRight(text, "KMG"), 10, 40)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no size", text)
	}
	return n << shift, nil
}

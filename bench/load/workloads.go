package main

import (
	"slices"
	"strconv"
)

type maker func(*registry, options) workload

var workloads = map[string]maker{
	"push-docker":  pushing,
	"push-put":     pushing,
	"push-chunked": pushing,
	"pull": reading(func(r *registry, o options, m image) (int64, error) {
		return m.pull(r, o.repository, o.tag)
	}),
	"head-tag": reading(func(r *registry, o options, _ image) (int64, error) {
		return r.get("HEAD", r.manifestPath(o.repository, o.tag))
	}),
	"get-tag": reading(func(r *registry, o options, _ image) (int64, error) {
		return r.get("GET", r.manifestPath(o.repository, o.tag))
	}),
	"get-manifest": reading(func(r *registry, o options, m image) (int64, error) {
		return r.get("GET", r.manifestPath(o.repository, m.manifest.digest))
	}),
	"head-blob": reading(func(r *registry, o options, m image) (int64, error) {
		return r.get("HEAD", r.blobPath(o.repository, m.layers[0].digest))
	}),
	"tags": reading(func(r *registry, o options, _ image) (int64, error) {
		return r.get("GET", "/v2/"+o.repository+"/tags/list?n=100")
	}),
}

func names() []string {
	var all []string
	for name := range workloads {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// pushing pushes another new image with every operation.
func pushing(r *registry, o options) workload {
	images := make([]image, o.count)
	return workload{
		prepare: func() error {
			for i := range images {
				images[i] = newImage(o.layers, o.size)
			}
			return nil
		},
		run: func(i int) (int64, error) {
			return images[i].push(r, o.repository, o.tag+"-"+strconv.Itoa(i), o.work)
		},
	}
}

// reading pushes one image before the clock starts and then reads of it.
func reading(read func(*registry, options, image) (int64, error)) maker {
	return func(r *registry, o options) workload {
		held := newImage(o.layers, o.size)
		return workload{
			prepare: func() error {
				_, err := held.push(r, o.repository, o.tag, "push-put")
				return err
			},
			run: func(int) (int64, error) { return read(r, o, held) },
		}
	}
}

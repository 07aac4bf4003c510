package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
)

const manifestType = "application/vnd.oci.image.manifest.v1+json"

type blob struct {
	data   []byte
	digest string
}

type image struct {
	config   blob
	layers   []blob
	manifest blob
}

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int    `json:"size"`
}

func newBlob(data []byte) blob {
	sum := sha256.Sum256(data)
	return blob{data, "sha256:" + hex.EncodeToString(sum[:])}
}

// randomBlob is one nobody has seen before.
func randomBlob(size int64) blob {
	data := make([]byte, size)
	rand.Read(data)
	return newBlob(data)
}

// newImage makes an image whose blobs nobody has seen before.
func newImage(layers int, size int64) image {
	made := image{config: randomBlob(1500)}
	var described []descriptor
	for range layers {
		layer := randomBlob(size)
		made.layers = append(made.layers, layer)
		described = append(described, descriptor{"application/vnd.oci.image.layer.v1.tar+gzip", layer.digest, len(layer.data)})
	}
	content, err := json.Marshal(map[string]any{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        descriptor{"application/vnd.oci.image.config.v1+json", made.config.digest, len(made.config.data)},
		"layers":        described,
	})
	if err != nil {
		fail(err)
	}
	made.manifest = newBlob(content)
	return made
}

// push sends all blobs at once, as clients do, and then the manifest.
func (m image) push(r *registry, repository, tag, way string) (int64, error) {
	blobs := append([]blob{m.config}, m.layers...)
	outcomes := make(chan error, len(blobs))
	var total int64
	for _, b := range blobs {
		total += int64(len(b.data))
		go func() { outcomes <- r.pushBlob(repository, b, way) }()
	}
	var failed error
	for range blobs {
		failed = errors.Join(failed, <-outcomes)
	}
	if failed != nil {
		return 0, failed
	}
	return total, r.pushManifest(repository, tag, m.manifest.data)
}

// pull resolves the tag, reads the manifest and then every blob, one after the other.
func (m image) pull(r *registry, repository, tag string) (int64, error) {
	if _, err := r.get("HEAD", r.manifestPath(repository, tag)); err != nil {
		return 0, err
	}
	total, err := r.get("GET", r.manifestPath(repository, m.manifest.digest))
	for _, b := range append([]blob{m.config}, m.layers...) {
		if err != nil {
			return 0, err
		}
		var n int64
		n, err = r.get("GET", r.blobPath(repository, b.digest))
		total += n
	}
	return total, err
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// chunk is what a client that pushes in chunks sends at once.
const chunk = 5 << 20

// registry is one OCI registry, spoken to as clients do.
type registry struct {
	base   *url.URL
	client *http.Client
}

func newRegistry(base string) *registry {
	parsed, err := url.Parse(base)
	if err != nil {
		fail(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, ReadBufferSize: 256 << 10, WriteBufferSize: 256 << 10}
	return &registry{parsed, &http.Client{Transport: transport}}
}

// call makes one request, reads its answer to the end and fails unless the status is one of those wanted. A negative
// length sends the body in chunks, as a client does that does not know it.
func (r *registry) call(method, at string, body io.Reader, length int64, headers map[string]string, wanted ...int) (*http.Response, int64, error) {
	target, err := r.base.Parse(at)
	if err != nil {
		return nil, 0, err
	}
	request, err := http.NewRequest(method, target.String(), body)
	if err != nil {
		return nil, 0, err
	}
	if body != nil {
		request.ContentLength = length
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer answer.Body.Close()
	for _, status := range wanted {
		if answer.StatusCode == status {
			n, err := io.Copy(io.Discard, answer.Body)
			return answer, n, err
		}
	}
	said, _ := io.ReadAll(io.LimitReader(answer.Body, 300))
	return nil, 0, fmt.Errorf("%s %s: %s %s", method, target.Path, answer.Status, said)
}

// get reads or heads a path and checks that what was announced came.
func (r *registry) get(method, at string) (int64, error) {
	answer, n, err := r.call(method, at, nil, 0, map[string]string{"Accept": manifestType}, http.StatusOK)
	if err == nil && method == http.MethodGet && answer.ContentLength >= 0 && answer.ContentLength != n {
		err = fmt.Errorf("GET %s: %d bytes of %d", at, n, answer.ContentLength)
	}
	return n, err
}

func (r *registry) blobPath(repository, digest string) string {
	return "/v2/" + repository + "/blobs/" + digest
}

func (r *registry) manifestPath(repository, reference string) string {
	return "/v2/" + repository + "/manifests/" + reference
}

// pushBlob uploads one blob in the given way, unless the registry says that it holds it.
func (r *registry) pushBlob(repository string, b blob, way string) error {
	answer, _, err := r.call("HEAD", r.blobPath(repository, b.digest), nil, 0, nil, 200, 404)
	if err != nil || answer.StatusCode == 200 {
		return err
	}
	answer, _, err = r.call("POST", "/v2/"+repository+"/blobs/uploads/", nil, 0, nil, 202)
	if err != nil {
		return err
	}
	location := answer.Header.Get("Location")
	var last io.Reader
	var length int64
	switch way {
	case "push-put": // containerd, buildkit, oras, helm: the closing PUT carries the bytes
		last, length = bytes.NewReader(b.data), int64(len(b.data))
	case "push-chunked":
		location, err = r.sendChunks(location, b.data)
	default: // the Docker daemon, podman, skopeo, crane: one PATCH of unknown length
		unsized := struct{ io.Reader }{bytes.NewReader(b.data)}
		location, err = r.patch(location, unsized, -1, nil)
	}
	if err != nil {
		return err
	}
	closing, err := withDigest(location, b.digest)
	if err != nil {
		return err
	}
	_, _, err = r.call("PUT", closing, last, length, octets(nil), 201)
	return err
}

func (r *registry) sendChunks(location string, data []byte) (string, error) {
	for from := 0; from < len(data); from += chunk {
		to := min(from+chunk, len(data))
		place := map[string]string{"Content-Range": strconv.Itoa(from) + "-" + strconv.Itoa(to-1)}
		var err error
		if location, err = r.patch(location, bytes.NewReader(data[from:to]), int64(to-from), place); err != nil {
			return "", err
		}
	}
	return location, nil
}

func (r *registry) patch(location string, body io.Reader, length int64, headers map[string]string) (string, error) {
	answer, _, err := r.call("PATCH", location, body, length, octets(headers), 202)
	if err != nil {
		return "", err
	}
	return answer.Header.Get("Location"), nil
}

func (r *registry) pushManifest(repository, reference string, content []byte) error {
	headers := map[string]string{"Content-Type": manifestType}
	_, _, err := r.call("PUT", r.manifestPath(repository, reference), bytes.NewReader(content), int64(len(content)), headers, 201)
	return err
}

func octets(headers map[string]string) map[string]string {
	all := map[string]string{"Content-Type": "application/octet-stream"}
	for name, value := range headers {
		all[name] = value
	}
	return all
}

func withDigest(location, digest string) (string, error) {
	parsed, err := url.Parse(location)
	if err != nil {
		return "", err
	}
	query := parsed.Query()
	query.Set("digest", digest)
	parsed.RawQuery = query.Encode()
	return parsed.String(), nil
}

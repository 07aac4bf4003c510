module edge-registry/bench/load

go 1.24

package service

import "net/http"

// KeepConnections has the process keep the HTTP connections that its chains ask L1 with: all of them
// ask at the same moments, and of Go's default two to a host that stay open, the others would be
// dialled anew each time, TLS included. op-supernode's client uses the default transport. For main functions, before
// anything else.
func KeepConnections() {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		keepConnections(t)
	}
}

func keepConnections(t *http.Transport) { t.MaxIdleConnsPerHost = t.MaxIdleConns }

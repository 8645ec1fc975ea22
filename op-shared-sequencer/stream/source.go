package stream

import "net/netip"

// Source is who counts as one by an address of a connection: an IPv4 address, or the /64 that
// one user has of IPv6. Loopback addresses count as nobody: what runs on this machine, or in
// front of it, limits itself.
func Source(remote string) (netip.Prefix, bool) {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}, false // not of an outside connection
	}
	ip := at.Addr().Unmap()
	if ip.IsLoopback() {
		return netip.Prefix{}, false
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.WithZone("").Prefix(bits)
	return prefix, err == nil
}

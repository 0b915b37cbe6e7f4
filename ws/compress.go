package ws

import "github.com/weft-ws/weft/internal/deflate"

// initDeflate sets up permessage-deflate as negotiated.
func (c *Conn) initDeflate(p deflate.Params) {
	own, peer := p.ServerMaxWindowBits, p.ClientMaxWindowBits
	ownTakeover, peerTakeover := !p.ServerNoContextTakeover, !p.ClientNoContextTakeover
	if c.role == RoleClient {
		own, peer = peer, own
		ownTakeover, peerTakeover = peerTakeover, ownTakeover
	}
	c.w.windowBits, c.w.takeover = own, ownTakeover
	c.w.threshold = c.cfg.Compression.Threshold
	c.w.deflater = new(deflate.Deflater)
	c.w.deflater.Reset(own, ownTakeover)
	if level := c.cfg.Compression.Level; level > 0 {
		c.w.deflater.SetLevel(level)
	}
	c.r.inflater = new(deflate.Inflater)
	c.r.inflater.Reset(peer, peerTakeover)
}

// ownWindowBits and ownTakeover are what was agreed for what we send.
func (c *Conn) ownWindowBits() int { return c.w.windowBits }
func (c *Conn) ownTakeover() bool  { return c.w.takeover }

// closeDeflate gives back what compression holds, once the connection is over
// and nobody reads.
func (c *Conn) closeDeflate() {
	if c.r.inflater != nil {
		c.r.inflater.Close()
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	if c.w.deflater != nil && !c.w.busy && !c.w.open {
		c.w.deflater.Close()
	}
}

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
	c.r.inflater = new(deflate.Inflater)
	c.r.inflater.Reset(peer, peerTakeover)
}

// ownWindowBits and ownTakeover are what was agreed for what we send.
func (c *Conn) ownWindowBits() int { return c.w.windowBits }
func (c *Conn) ownTakeover() bool  { return c.w.takeover }

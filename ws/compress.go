package ws

import (
	"github.com/weft-ws/weft/internal/deflate"
	"github.com/weft-ws/weft/internal/proto"
)

// A packer compresses what a connection sends. It is guarded by the message
// lock, apart from what was agreed in the handshake, which does not change.
type packer struct {
	deflate.Deflater
	threshold  int // payload bytes below which a message goes plain
	windowBits int
	takeover   bool
}

// An unpacker inflates what a connection receives. It belongs to the reader.
type unpacker struct {
	deflate.Inflater
	text proto.Text // of inflated text
	size int64      // bytes of the present message, inflated
}

// initDeflate sets up permessage-deflate as negotiated.
func (c *Conn) initDeflate(p deflate.Params) {
	own, peer := p.ServerMaxWindowBits, p.ClientMaxWindowBits
	ownTakeover, peerTakeover := !p.ServerNoContextTakeover, !p.ClientNoContextTakeover
	if c.role == RoleClient {
		own, peer = peer, own
		ownTakeover, peerTakeover = peerTakeover, ownTakeover
	}
	c.w.deflater = &packer{threshold: c.cfg.Compression.Threshold, windowBits: own, takeover: ownTakeover}
	c.w.deflater.Reset(own, ownTakeover)
	if level := c.cfg.Compression.Level; level > 0 {
		c.w.deflater.SetLevel(level)
	}
	c.r.inflater = new(unpacker)
	c.r.inflater.Reset(peer, peerTakeover)
}

// ownWindowBits and ownTakeover are what was agreed for what we send.
func (c *Conn) ownWindowBits() int { return c.w.deflater.windowBits }
func (c *Conn) ownTakeover() bool  { return c.w.deflater.takeover }

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

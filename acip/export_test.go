package acip

import (
	"bytes"
	"crypto/ecdh"
	"io"
)

// Fixed returns a configuration whose nonces come from b, to replay a session.
func (c ServerConfig) Fixed(b []byte) ServerConfig { c.random = bytes.NewReader(b); return c }

// Fixed returns a configuration whose nonces come from b, to replay a session.
func (c ClientConfig) Fixed(b []byte) ClientConfig { c.random = bytes.NewReader(b); return c }

// SetEphemeral replaces the ephemeral key, to replay a session.
func (s *Server) SetEphemeral(b []byte) {
	k, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		panic(err)
	}
	s.ephemeral = k
}

// SetKey replaces the session key that the exchange led to: of the client in a
// recording only the public half is known.
func (s *Server) SetKey(k Key) { s.key, s.opener = k, NewOpener(k, s.own) }

// SetKey replaces the session key that the exchange led to.
func (c *Client) SetKey(k Key) { c.key, c.opener = k, NewOpener(k, c.own) }

// SealerWith returns a Sealer with a given session id and last counter.
func SealerWith(k Key, id [16]byte, counter uint64) *Sealer {
	s, err := NewSealer(k, io.MultiReader(bytes.NewReader(id[:])))
	if err != nil {
		panic(err)
	}
	s.counter = counter
	return s
}

// Proof is the HMAC of the authentication packets.
func Proof(password *Key, session Key, nonce [32]byte) [32]byte {
	return proof(password, session, nonce)
}

// Rewind forgets the last counter, so that one packet can be opened again.
func (o *Opener) Rewind() { o.counter = 0 }

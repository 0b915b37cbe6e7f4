module github.com/weft-ws/weft/bench

go 1.26.0

replace github.com/weft-ws/weft => ../

require (
	github.com/coder/websocket v1.8.15
	github.com/gobwas/ws v1.5.0
	github.com/gorilla/websocket v1.5.3
	github.com/klauspost/compress v1.20.3
	github.com/lesismal/nbio v1.6.12
	github.com/lxzan/gws v1.9.1
	github.com/weft-ws/weft v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/gobwas/httphead v0.1.0 // indirect
	github.com/lesismal/llib v1.2.4 // indirect
	golang.org/x/crypto v0.58.0 // indirect
)

package ws

// tcpNotSentLowat is TCP_NOTSENT_LOWAT of netinet/tcp.h.
const tcpNotSentLowat = 0x201

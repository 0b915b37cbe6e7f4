package ws

import (
	"os"
	"syscall"
	"unsafe"
)

// giveBack tells the system that the content of b is not needed any more. The
// memory stays ours and reads as zero; b must not be in use by anybody.
func giveBack(b []byte) {
	page := uintptr(os.Getpagesize())
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	skip := (page - at%page) % page
	if uintptr(len(b)) < skip+page {
		return
	}
	whole := (uintptr(len(b)) - skip) / page * page
	_ = syscall.Madvise(b[skip:skip+whole], syscall.MADV_DONTNEED) // a saving, not a need
}

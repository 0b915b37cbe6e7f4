//go:build race

package doctor_test

// legalConnections is smaller under the race detector, which has little to look
// at here: an Inspector is used by one goroutine.
const legalConnections = 2000

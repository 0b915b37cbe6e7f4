//go:build !race

package doctor_test

// legalConnections is how many generated connections TestLegalTraffic tries
// unless told otherwise.
const legalConnections = 20000

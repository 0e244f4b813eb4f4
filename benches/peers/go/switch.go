// The Go peer, on one P. `switch FIGURE ITERATIONS` prints nanoseconds.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Goroutines that yield until they are told to stop; the caller's turns count the rounds.
func turns(count, rounds int, framed bool) time.Duration {
	stop, turns := false, 0
	for i := 1; i < count; i++ {
		go func() {
			var frame [32]int
			for n := 0; !stop; n++ {
				if framed {
					frame[n%32] += n
				}
				turns++
				runtime.Gosched()
			}
			runtime.KeepAlive(&frame)
		}()
	}
	runtime.Gosched()
	before, start := turns, time.Now()
	for i := 0; i < rounds; i++ {
		runtime.Gosched()
	}
	took := time.Since(start)
	stop = true
	if due := (count - 1) * rounds; turns-before < due/10*9 {
		fmt.Fprintf(os.Stderr, "%d turns where %d were due\n", turns-before, due)
		os.Exit(1)
	}
	return took
}

func spawnJoin(count, iterations int) time.Duration {
	done := make(chan bool, count)
	start := time.Now()
	for i := 0; i < iterations; i++ {
		for j := 0; j < count; j++ {
			go func() { done <- true }()
		}
		for j := 0; j < count; j++ {
			<-done
		}
	}
	return time.Since(start)
}

// From one goroutine to another, by a channel that holds so many items.
func handOver(iterations, size int) time.Duration {
	items := make(chan int, size)
	go func() {
		for i := 0; i < iterations; i++ {
			items <- i
		}
	}()
	start, sum := time.Now(), 0
	for i := 0; i < iterations; i++ {
		sum += <-items
	}
	took := time.Since(start)
	runtime.KeepAlive(sum)
	return took
}

// Bytes resident and in page tables, and mappings.
func status() (bytes, mappings int) {
	text, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "VmRSS:") || strings.HasPrefix(line, "VmPTE:") {
			kib, _ := strconv.Atoi(strings.Fields(line)[1])
			bytes += kib * 1024
		}
	}
	text, _ = os.ReadFile("/proc/self/maps")
	return bytes, strings.Count(string(text), "\n")
}

func park(count int) {
	bytes, mappings := status()
	never := make(chan bool)
	for i := 0; i < count; i++ {
		go func() { <-never }()
	}
	runtime.Gosched()
	time.Sleep(time.Millisecond)
	bytesNow, mappingsNow := status()
	fmt.Println(bytesNow-bytes, mappingsNow-mappings)
}

func main() {
	runtime.GOMAXPROCS(1)
	kind, detail, _ := strings.Cut(os.Args[1], ".")
	iterations := 0
	if len(os.Args) > 2 {
		iterations, _ = strconv.Atoi(os.Args[2])
	}
	count, err := strconv.Atoi(strings.TrimPrefix(detail, "batch"))
	if detail == "one" {
		count, err = 1, nil
	}
	switch {
	case err == nil && (kind == "ring" || kind == "yield"):
		fmt.Println(turns(count, iterations, kind == "ring").Nanoseconds())
	case err == nil && kind == "spawn_join":
		fmt.Println(spawnJoin(count, iterations).Nanoseconds())
	case os.Args[1] == "queue.handover":
		fmt.Println(handOver(iterations, 1).Nanoseconds())
	case os.Args[1] == "queue.rendezvous":
		fmt.Println(handOver(iterations, 0).Nanoseconds())
	case err == nil && kind == "parked_bytes":
		park(count)
	default:
		fmt.Fprintln(os.Stderr, "does not do this figure")
		os.Exit(1)
	}
}

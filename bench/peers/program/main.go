// Command peers does with another queue what the benchmark does with AsyncQueue:
//
//	peers QUEUE STORE submit CLIENTS SECONDS BYTES   each client stores one job after the other; prints jobs a second
//	peers QUEUE STORE pace RATE SECONDS BYTES        stores so many a second, each with the time in it; prints how many
//	peers QUEUE STORE fill JOBS BYTES                stores so many, as fast as it goes
//	peers QUEUE STORE purge                          takes all jobs away
//	peers QUEUE STORE work URL IN_FLIGHT EAGER       posts each job to the URL, until it is ended
//
// QUEUE is asynq, faktory or river, and STORE the address of its Redis, server or PostgreSQL. EAGER is true or false: false is as the
// queue comes.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// queue is what all have in common.
type queue interface {
	submit(ctx context.Context, body []byte) error
	fill(ctx context.Context, jobs int, body []byte) error
	purge(ctx context.Context) error
	// work returns when ctx ends.
	work(ctx context.Context, inFlight int, eager bool, run func(context.Context, []byte) error) error
}

const (
	// Before a rate is measured: connections are opened, and memory is taken that stays.
	warmUp = 500 * time.Millisecond
	// Clients at once, and connections of a pool.
	connections = 64
	// Jobs that are stored together, where the backlog is prepared and the queue can do that.
	batchSize = 1000
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("usage: peers asynq|faktory|river STORE submit|pace|fill|purge|work ARGUMENT...")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	queues := map[string]func(context.Context, string) (queue, error){
		"asynq":   openAsynq,
		"faktory": openFaktory,
		"river":   openRiver,
	}
	open := queues[args[0]]
	if open == nil {
		return fmt.Errorf("there is no queue %q", args[0])
	}
	q, err := open(ctx, args[1])
	if err != nil {
		return err
	}
	command, args := args[2], args[3:]
	if command == "work" {
		return work(ctx, q, args)
	}
	var numbers []int
	for _, arg := range args {
		number, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		numbers = append(numbers, number)
	}
	switch {
	case command == "submit" && len(numbers) == 3:
		return submit(ctx, q, numbers[0], time.Duration(numbers[1])*time.Second, numbers[2])
	case command == "pace" && len(numbers) == 3:
		return pace(ctx, q, numbers[0], time.Duration(numbers[1])*time.Second, numbers[2])
	case command == "fill" && len(numbers) == 2:
		return q.fill(ctx, numbers[0], body(numbers[1]))
	case command == "purge" && len(numbers) == 0:
		return q.purge(ctx)
	}
	return fmt.Errorf("there is no command %q with %d numbers", command, len(numbers))
}

// body has the time at its beginning, in nanoseconds since 1970, by which the function knows how long it was under way.
func body(size int) []byte {
	body := fmt.Appendf(make([]byte, 0, size), "%d ", time.Now().UnixNano())
	return append(body, bytes.Repeat([]byte{'x'}, max(0, size-len(body)))...)
}

func submit(ctx context.Context, q queue, clients int, length time.Duration, size int) error {
	var stored atomic.Int64
	ctx, stop := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			job := body(size)
			for ctx.Err() == nil {
				if err := q.submit(ctx, job); err == nil {
					stored.Add(1)
				} else {
					stop(err)
				}
			}
		})
	}
	sleep(ctx, warmUp)
	begun, before := time.Now(), stored.Load()
	sleep(ctx, length)
	rate := float64(stored.Load()-before) / time.Since(begun).Seconds()
	failed := context.Cause(ctx)
	stop(nil)
	running.Wait()
	if failed == nil {
		fmt.Printf("%.1f\n", rate)
	}
	return failed
}

func pace(ctx context.Context, q queue, rate int, length time.Duration, size int) error {
	ticks := time.NewTicker(time.Second / time.Duration(rate))
	defer ticks.Stop()
	failed := make(chan error, 1)
	var running sync.WaitGroup
	jobs := 0
	for begun := time.Now(); time.Since(begun) < length; <-ticks.C {
		jobs++
		running.Go(func() {
			if err := q.submit(ctx, body(size)); err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	running.Wait()
	close(failed)
	fmt.Println(jobs)
	return <-failed
}

func work(ctx context.Context, q queue, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("work takes URL IN_FLIGHT EAGER")
	}
	inFlight, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	eager, err := strconv.ParseBool(args[2])
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = inFlight
	client := &http.Client{Transport: transport}
	return q.work(ctx, inFlight, eager, func(ctx context.Context, body []byte) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, args[0], bytes.NewReader(body))
		if err != nil {
			return err
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("the function answered %s", answer.Status)
		}
		return nil
	})
}

func sleep(ctx context.Context, length time.Duration) {
	select {
	case <-time.After(length):
	case <-ctx.Done():
	}
}

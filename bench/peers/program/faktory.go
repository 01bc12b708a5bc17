package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	faktory "github.com/contribsys/faktory/client"
	worker "github.com/contribsys/faktory_worker_go"
)

const faktoryJob = "job"

type faktoryPeer struct{ pool *faktory.Pool }

func openFaktory(_ context.Context, addr string) (queue, error) {
	// Where its libraries look, that of the worker too.
	if err := os.Setenv("FAKTORY_URL", "tcp://"+addr); err != nil {
		return nil, err
	}
	pool, err := faktory.NewPool(connections)
	return &faktoryPeer{pool}, err
}

func (q *faktoryPeer) submit(_ context.Context, body []byte) error {
	return q.pool.With(func(client *faktory.Client) error {
		return client.Push(faktory.NewJob(faktoryJob, string(body)))
	})
}

func (q *faktoryPeer) fill(_ context.Context, jobs int, body []byte) error {
	return q.pool.With(func(client *faktory.Client) error {
		for jobs > 0 {
			batch := make([]*faktory.Job, min(jobs, batchSize))
			for at := range batch {
				batch[at] = faktory.NewJob(faktoryJob, string(body))
			}
			refused, err := client.PushBulk(batch)
			if err != nil {
				return err
			}
			if len(refused) > 0 {
				return fmt.Errorf("%d jobs were refused", len(refused))
			}
			jobs -= len(batch)
		}
		return nil
	})
}

func (q *faktoryPeer) purge(context.Context) error {
	return q.pool.With((*faktory.Client).Flush)
}

func (q *faktoryPeer) work(ctx context.Context, inFlight int, eager bool, run func(context.Context, []byte) error) error {
	if eager {
		return errors.New("a worker of Faktory waits at the server for jobs; none is more eager")
	}
	manager := worker.NewManager()
	manager.Concurrency = inFlight
	manager.Register(faktoryJob, func(ctx context.Context, args ...any) error {
		body, _ := args[0].(string)
		return run(ctx, []byte(body))
	})
	return manager.RunWithContext(ctx)
}

package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

const (
	asynqJob = "job"
	// How soon an eager worker looks again that found nothing; as it comes, a second.
	asynqLooks = 2 * time.Millisecond
)

type asynqPeer struct {
	redis  asynq.RedisClientOpt
	client *asynq.Client
}

func openAsynq(_ context.Context, addr string) (queue, error) {
	options := asynq.RedisClientOpt{Addr: addr, PoolSize: connections}
	return &asynqPeer{options, asynq.NewClient(options)}, nil
}

func (q *asynqPeer) submit(ctx context.Context, body []byte) error {
	_, err := q.client.EnqueueContext(ctx, asynq.NewTask(asynqJob, body))
	return err
}

func (q *asynqPeer) fill(ctx context.Context, jobs int, body []byte) error {
	var running sync.WaitGroup
	failures := make([]error, connections)
	for client := range connections {
		running.Go(func() {
			for job := client; job < jobs && failures[client] == nil; job += connections {
				failures[client] = q.submit(ctx, body)
			}
		})
	}
	running.Wait()
	return errors.Join(failures...)
}

func (q *asynqPeer) purge(ctx context.Context) error {
	return q.redis.MakeRedisClient().(redis.UniversalClient).FlushAll(ctx).Err()
}

func (q *asynqPeer) work(ctx context.Context, inFlight int, eager bool, run func(context.Context, []byte) error) error {
	config := asynq.Config{Concurrency: inFlight, LogLevel: asynq.WarnLevel}
	if eager {
		config.TaskCheckInterval = asynqLooks
	}
	server := asynq.NewServer(q.redis, config)
	err := server.Start(asynq.HandlerFunc(func(ctx context.Context, job *asynq.Task) error {
		return run(ctx, job.Payload())
	}))
	if err != nil {
		return err
	}
	<-ctx.Done()
	server.Shutdown()
	return nil
}

package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const (
	// How soon after a fetch an eager worker fetches again, and how soon unasked; as it comes, 100 ms and a second.
	riverCooldown = 2 * time.Millisecond
	riverLooks    = 20 * time.Millisecond
)

// Its own would write to stdout, where a figure is expected.
var riverLog = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

type riverArgs struct {
	Body []byte `json:"body"`
}

func (riverArgs) Kind() string { return "job" }

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	run func(context.Context, []byte) error
}

func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverArgs]) error {
	return w.run(ctx, job.Args.Body)
}

type riverPeer struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

func openRiver(ctx context.Context, url string) (queue, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = connections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return nil, err
	}
	// Nothing is done where the tables are there.
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: riverLog})
	return &riverPeer{pool, client}, err
}

func (q *riverPeer) submit(ctx context.Context, body []byte) error {
	_, err := q.client.Insert(ctx, riverArgs{body}, nil)
	return err
}

func (q *riverPeer) fill(ctx context.Context, jobs int, body []byte) error {
	for jobs > 0 {
		batch := make([]river.InsertManyParams, min(jobs, batchSize))
		for at := range batch {
			batch[at].Args = riverArgs{body}
		}
		if _, err := q.client.InsertManyFast(ctx, batch); err != nil {
			return err
		}
		jobs -= len(batch)
	}
	// As a database has it that was not filled a second ago.
	_, err := q.pool.Exec(ctx, "VACUUM ANALYZE river_job")
	return err
}

func (q *riverPeer) purge(ctx context.Context) error {
	_, err := q.pool.Exec(ctx, "TRUNCATE river_job")
	return err
}

func (q *riverPeer) work(ctx context.Context, inFlight int, eager bool, run func(context.Context, []byte) error) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{run: run})
	config := &river.Config{
		Logger:  riverLog,
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: inFlight}},
		Workers: workers,
	}
	if eager {
		config.FetchCooldown, config.FetchPollInterval = riverCooldown, riverLooks
	}
	client, err := river.NewClient(riverpgxv5.New(q.pool), config)
	if err != nil {
		return err
	}
	// Not with ctx, whose end would break off what runs.
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	<-ctx.Done()
	return client.Stop(context.WithoutCancel(ctx))
}

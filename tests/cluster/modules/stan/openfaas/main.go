// openfaas stands for the programs of OpenFaaS Community Edition that take part in asynchronous calls, whose images a
// cluster without a registry cannot pull. It does what theirs are seen to do, over the same HTTP, with the same messages
// in NATS Streaming, and with the same objects in Kubernetes; none of their code is in it.
//
//	openfaas gateway         gateway and faas-netes: takes calls, passes on those of functions, deploys functions
//	openfaas queue-worker    runs what is queued, through the gateway
//	openfaas cron-connector  a client inside the cluster: calls the function hello again and again
//
// Settings come from the environment, under the names that OpenFaaS's charts give them.
package main

import (
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/stan.go"
)

// What OpenFaaS calls all of it.
const (
	cluster = "faas-cluster"
	channel = "faas-request"
	group   = "faas"
	durable = "faas-request"
)

// request is a call as it is queued.
type request struct {
	Header      map[string][]string `json:",omitempty"`
	Host        string              `json:",omitempty"`
	Body        []byte              `json:",omitempty"`
	Method      string
	Path        string `json:",omitempty"`
	QueryString string `json:",omitempty"`
	Function    string
	CallbackUrl *callbackURL `json:",omitempty"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		fail(fmt.Errorf("one argument is needed, see main.go"))
	}
	switch os.Args[1] {
	case "gateway":
		gateway()
	case "queue-worker":
		queueWorker()
	case "cron-connector":
		cronConnector()
	default:
		fail(fmt.Errorf("there is no program %q", os.Args[1]))
	}
}

// connect waits for NATS Streaming. The client's id is that of this pod.
func connect(role string) stan.Conn {
	host, err := os.Hostname()
	fail(err)
	url := fmt.Sprintf("nats://%s:%s", setting("faas_nats_address", "nats"), setting("faas_nats_port", "4222"))
	for {
		connection, err := stan.Connect(cluster, role+"-"+host, stan.NatsURL(url))
		if err == nil {
			return connection
		}
		log.Printf("waiting for %s: %v", url, err)
		time.Sleep(time.Second)
	}
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func fail(err error) {
	if err != nil {
		log.Fatalf("openfaas: %v", err)
	}
}

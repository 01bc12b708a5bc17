// stan-client publishes to a channel of NATS Streaming, and works on one as OpenFaaS's queue-worker
// does: with the client library that both use.
//
//	stan-client join URL CLUSTER CHANNEL GROUP DURABLE
//	stan-client publish URL CLUSTER CHANNEL
//	stan-client work URL CLUSTER CHANNEL GROUP DURABLE ACK-WAIT ACKS
//
// join makes the durable queue group known and leaves. publish stores each line of its input as a
// message. work acknowledges so many messages, printing each, then keeps the next one in hand, prints
// "in hand" and waits to be killed.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/stan.go"
)

func main() {
	if len(os.Args) < 5 {
		fail(fmt.Errorf("arguments are missing, see main.go"))
	}
	switch os.Args[1] {
	case "join":
		join(connect("faas-worker"), os.Args[4:])
	case "publish":
		publish(connect("faas-publisher"), os.Args[4])
	case "work":
		work(connect("faas-worker"), os.Args[4:])
	default:
		fail(fmt.Errorf("there is no command %q", os.Args[1]))
	}
}

func connect(client string) stan.Conn {
	connection, err := stan.Connect(os.Args[3], client, stan.NatsURL(os.Args[2]))
	fail(err)
	return connection
}

func join(connection stan.Conn, arguments []string) {
	channel, group, durable := arguments[0], arguments[1], arguments[2]
	_, err := connection.QueueSubscribe(channel, group, func(*stan.Msg) {
		fail(fmt.Errorf("the channel is not empty"))
	}, stan.DurableName(durable), stan.SetManualAckMode())
	fail(err)
	fail(connection.Close())
}

func publish(connection stan.Conn, channel string) {
	var stored sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 2<<20)
	for lines.Scan() {
		stored.Add(1)
		_, err := connection.PublishAsync(channel, []byte(lines.Text()), func(_ string, err error) {
			fail(err)
			stored.Done()
		})
		fail(err)
	}
	fail(lines.Err())
	stored.Wait()
	fail(connection.Close())
}

func work(connection stan.Conn, arguments []string) {
	channel, group, durable := arguments[0], arguments[1], arguments[2]
	ackWait, err := time.ParseDuration(arguments[3])
	fail(err)
	acks, err := strconv.Atoi(arguments[4])
	fail(err)
	_, err = connection.QueueSubscribe(channel, group, func(message *stan.Msg) {
		if acks == 0 {
			fmt.Println("in hand")
			select {}
		}
		acks--
		fail(message.Ack())
		fmt.Println(string(message.Data))
	}, stan.DurableName(durable), stan.AckWait(ackWait), stan.MaxInflight(1),
		stan.StartWithLastReceived(), stan.SetManualAckMode())
	fail(err)
	select {}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "stan-client:", err)
		os.Exit(1)
	}
}

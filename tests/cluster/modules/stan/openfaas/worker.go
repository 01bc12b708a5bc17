package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/stan.go"
)

// queueWorker runs one call after the other and acknowledges each when it has ended, however it did. Told to end, it
// is gone at once, with the call that it has in hand.
func queueWorker() {
	queue := connect("faas-worker")
	ackWait, err := time.ParseDuration(setting("ack_wait", "30s"))
	fail(err)
	_, err = queue.QueueSubscribe(channel, group, run,
		stan.DurableName(durable), stan.AckWait(ackWait), stan.DeliverAllAvailable(), stan.MaxInflight(1))
	fail(err)
	log.Printf("Listening on [%s], qgroup=[%s] maxInFlight=[1]", channel, group)
	select {}
}

func run(message *stan.Msg) {
	var call request
	if err := json.Unmarshal(message.Data, &call); err != nil {
		log.Printf("[#%d] Unmarshal error: %s with data %s", message.Sequence, err, message.Data)
		return
	}
	started := time.Now()
	status, header, body := invokeThroughGateway(call)
	log.Printf("[#%d] Invoked: %s [%d] in %fs", message.Sequence, call.Function, status, time.Since(started).Seconds())
	if call.CallbackUrl == nil {
		return
	}
	header.Set("X-Duration-Seconds", fmt.Sprintf("%f", time.Since(started).Seconds()))
	header.Set("X-Function-Status", fmt.Sprint(status))
	header.Set("X-Function-Name", call.Function)
	header.Set("X-Call-Id", http.Header(call.Header).Get("X-Call-Id"))
	target := url.URL{
		Scheme: call.CallbackUrl.Scheme, Opaque: call.CallbackUrl.Opaque, Host: call.CallbackUrl.Host,
		Path: call.CallbackUrl.Path, RawQuery: call.CallbackUrl.RawQuery,
	}
	status, _, _ = post(target.String(), header, body)
	log.Printf("[#%d] Posted result for %s to callback-url: %s, status: %d", message.Sequence, call.Function, &target, status)
}

func invokeThroughGateway(call request) (int, http.Header, []byte) {
	path := call.Path
	if path == "" {
		path = "/"
	}
	target := url.URL{
		Scheme: "http", Host: setting("faas_gateway_address", "gateway") + ":8080",
		Path: "/function/" + strings.Trim(call.Function, "/") + path, RawQuery: call.QueryString,
	}
	return post(target.String(), call.Header, call.Body)
}

// post returns 503 where nobody answers.
func post(target string, header http.Header, body []byte) (int, http.Header, []byte) {
	request, err := http.NewRequest(http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		log.Printf("%s: %v", target, err)
		return http.StatusServiceUnavailable, http.Header{}, nil
	}
	request.Header = header.Clone()
	request.Header.Del("Content-Length")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Printf("%s: %v", target, err)
		return http.StatusServiceUnavailable, http.Header{}, nil
	}
	defer response.Body.Close()
	answer, _ := io.ReadAll(response.Body)
	return response.StatusCode, response.Header, answer
}

package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

// cronConnector calls the function hello every second. Its calls are numbered in their ids, which the real one leaves to
// the gateway, and it goes on to the next number when a call is accepted: a number that is missing among the callbacks
// is a call that was lost.
func cronConnector() {
	host, err := os.Hostname()
	fail(err)
	gateway := setting("gateway_url", "http://gateway.openfaas:8080")
	for number := 1; ; time.Sleep(time.Second) {
		id := fmt.Sprintf("%s-%d", host, number)
		header := http.Header{
			"User-Agent": {"openfaas/cron-connector"}, "X-Connector": {"cron-connector"}, "X-Topic": {"cron-function"},
			"X-Call-Id":      {id},
			"X-Callback-Url": {"http://callbacks.openfaas-fn.svc.cluster.local:8080/callback/cron"},
		}
		status, _, _ := post(gateway+"/async-function/hello", header, nil)
		log.Printf("%s: %d by %s", id, status, gateway)
		if status == http.StatusAccepted {
			number++
		}
	}
}

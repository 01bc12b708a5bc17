package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/stan.go"
)

// callbackURL is the form that Go gives a URL in JSON.
type callbackURL struct {
	Scheme, Opaque string
	User           *struct{}
	Host, Path     string
	RawQuery       string
}

func gateway() {
	queue := connect("faas-publisher")
	http.HandleFunc("/healthz", func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(answer, "OK") })
	http.HandleFunc("/async-function/", func(answer http.ResponseWriter, call *http.Request) { enqueue(queue, answer, call) })
	http.HandleFunc("/function/", invoke)
	http.HandleFunc("/system/functions", deploy)
	log.Print("gateway: listening on :8080")
	fail(http.ListenAndServe(":8080", nil))
}

// enqueue stores a call and answers 202.
func enqueue(queue stan.Conn, answer http.ResponseWriter, call *http.Request) {
	if call.Method != http.MethodPost {
		answer.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	started := fmt.Sprint(time.Now().UnixNano())
	answer.Header().Set("X-Start-Time", started)
	answer.Header().Set("X-Served-By", "openfaas-ce/stand-in")
	call.Header.Add("X-Start-Time", started)
	if call.Header.Get("X-Call-Id") == "" {
		call.Header.Set("X-Call-Id", uuid())
		answer.Header().Set("X-Call-Id", call.Header.Get("X-Call-Id"))
	}
	callback, err := parse(call.Header.Get("X-Callback-Url"))
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	body, err := io.ReadAll(call.Body)
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	function, path, _ := cut(call.URL.Path, "/async-function/")
	message, err := json.Marshal(request{
		Header: call.Header, Host: call.Host, Body: body, Method: call.Method, Path: path,
		QueryString: call.URL.RawQuery, Function: function, CallbackUrl: callback,
	})
	if err == nil {
		err = queue.Publish(channel, message)
	}
	if err != nil {
		http.Error(answer, "Error queuing request: "+err.Error(), http.StatusInternalServerError)
		return
	}
	log.Printf("[%s] Queueing (%d) bytes for: %s.", call.Header.Get("X-Call-Id"), len(body), function)
	answer.WriteHeader(http.StatusAccepted)
}

// invoke passes a call on to the Service of its function.
func invoke(answer http.ResponseWriter, call *http.Request) {
	function, path, ok := cut(call.URL.Path, "/function/")
	if !ok {
		http.Error(answer, "Please provide a valid route /function/function_name.", http.StatusBadRequest)
		return
	}
	name, namespace, found := strings.Cut(function, ".")
	if !found {
		namespace = functionNamespace
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.Out.URL = &url.URL{
				Scheme: "http", Host: fmt.Sprintf("%s.%s.svc.cluster.local:8080", name, namespace),
				Path: path, RawQuery: call.URL.RawQuery,
			}
			request.SetXForwarded()
		},
		ErrorHandler: func(answer http.ResponseWriter, _ *http.Request, err error) {
			log.Printf("%s: %v", function, err)
			answer.Header().Set("X-OpenFaaS-Internal", "proxy")
			http.Error(answer, "Can't reach service for: "+function+".", http.StatusInternalServerError)
		},
	}
	proxy.ServeHTTP(answer, call)
}

// cut takes the name of a function and what follows it from a path.
func cut(path, route string) (function, rest string, ok bool) {
	function, rest, found := strings.Cut(strings.TrimPrefix(path, route), "/")
	if found {
		rest = "/" + rest
	}
	return function, rest, function != ""
}

func parse(text string) (*callbackURL, error) {
	if text == "" {
		return nil, nil
	}
	parsed, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	return &callbackURL{
		Scheme: parsed.Scheme, Opaque: parsed.Opaque, Host: parsed.Host, Path: parsed.Path, RawQuery: parsed.RawQuery,
	}, nil
}

func uuid() string {
	bytes := make([]byte, 16)
	_, err := rand.Read(bytes)
	fail(err)
	bytes[6], bytes[8] = bytes[6]&0x0f|0x40, bytes[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", bytes[:4], bytes[4:6], bytes[6:8], bytes[8:10], bytes[10:])
}

// go-clients NAME ADDRESS: sends one request as a client of OpenFaaS that is written in Go does, over a connection to
// ADDRESS, whatever its URL says. Without arguments it prints the names.
//
// These clients are in no package registry. What is here follows their public sources: which request they make, with
// which headers. The bytes are those of Go's net/http, which they use too.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sort"
)

const gateway = "http://127.0.0.1:8080"
const inCluster = "http://gateway.openfaas.svc.cluster.local:8080"

// faasCLI is the User-Agent of faas-cli: the version is that of a build without one.
const faasCLI = "faas-cli/dev (openfaas; linux; amd64)"

var requests = map[string]func() *http.Request{
	// faas-cli, commands/invoke.go: it reads all of stdin first, and go-sdk adds the namespace. `faas-cli invoke figlet
	// --async -H X-Callback-Url=http://caller:9000/cb`
	"faas-cli/invoke_async": func() *http.Request {
		request := sdk("figlet", "", "/async-function", url.Values{}, bytes.NewReader([]byte("hi\n")))
		request.Header.Set("X-Callback-Url", "http://caller:9000/cb")
		request.Header.Set("Content-Type", "text/plain")
		request.Header.Set("User-Agent", faasCLI)
		return request
	},
	// `faas-cli invoke figlet --async --namespace dev --query b=2 --query a=1 --content-type application/json`, without
	// input.
	"faas-cli/invoke_async_with_query": func() *http.Request {
		query := url.Values{"b": {"2"}, "a": {"1 ü"}}
		request := sdk("figlet", "dev", "/async-function", query, bytes.NewReader(nil))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("User-Agent", faasCLI)
		return request
	},
	// `faas-cli invoke figlet --async --sign X-Hub-Signature --key secret`
	"faas-cli/invoke_async_signed": func() *http.Request {
		request := sdk("figlet", "", "/async-function", url.Values{}, bytes.NewReader([]byte("hi\n")))
		digest := hmac.New(sha1.New, []byte("secret"))
		digest.Write([]byte("hi\n"))
		request.Header.Set("Content-Type", "text/plain")
		request.Header.Set("User-Agent", faasCLI)
		request.Header.Add("X-Hub-Signature", "sha1="+hex.EncodeToString(digest.Sum(nil)))
		return request
	},
	"faas-cli/invoke": func() *http.Request {
		request := sdk("figlet", "", "/function", url.Values{}, bytes.NewReader([]byte("hi\n")))
		request.Header.Set("Content-Type", "text/plain")
		request.Header.Set("User-Agent", faasCLI)
		return request
	},
	// faas-cli before it used go-sdk, proxy/invoke.go: no namespace but that of --namespace, and no User-Agent of its own.
	"faas-cli-before-go-sdk/invoke_async": func() *http.Request {
		request := post(gateway+"/async-function/figlet?a=1&b=2", bytes.NewReader([]byte("hi\n")))
		request.Header.Add("Content-Type", "text/plain")
		request.Header.Add("X-Callback-Url", "http://caller:9000/cb")
		return request
	},
	// go-sdk, functions.go and internal/httpclient: its own User-Agent where the program sets none.
	"go-sdk/invoke_async": func() *http.Request {
		request := sdk("figlet", "", "/async-function", url.Values{}, bytes.NewReader([]byte("hi")))
		request.Header.Set("User-Agent", "openfaas-go-sdk")
		return request
	},
	// A body of which Go does not know the length, like a file that is streamed.
	"go-sdk/invoke_async_of_a_stream": func() *http.Request {
		request := sdk("figlet", "", "/async-function", url.Values{}, io.MultiReader(bytes.NewReader([]byte("hi\n"))))
		request.Header.Set("User-Agent", "openfaas-go-sdk")
		return request
	},
	// cron-connector of Community Edition, types/cron_function.go: neither body nor headers.
	"cron-connector/invoke_async": func() *http.Request {
		return post(inCluster+"/async-function/nightly.openfaas-fn", nil)
	},
	// The same with `asynchronous_invocation` false.
	"cron-connector/invoke": func() *http.Request {
		return post(inCluster+"/function/nightly.openfaas-fn", nil)
	},
	// It lists namespaces and functions at the same gateway, main.go, by faas-cli's package proxy.
	"cron-connector/list_namespaces": func() *http.Request {
		return listed("/system/namespaces")
	},
	"cron-connector/list_functions": func() *http.Request {
		return listed("/system/functions?namespace=openfaas-fn")
	},
	// connector-sdk, types/invoker.go: a connector without a User-Agent sends none at all, since it is set to nothing.
	"connector-sdk/invoke_async": func() *http.Request {
		request := post(inCluster+"/async-function/receiver.openfaas-fn", bytes.NewReader([]byte("{\"order\":7}")))
		request.Header.Set("User-Agent", "")
		request.Header.Set("X-Connector", "connector-sdk")
		request.Header.Add("X-Topic", "payment")
		request.Header.Add("Content-Type", "application/json")
		request.Header.Add("X-Callback-Url", "http://gateway.openfaas:8080/function/done")
		return request
	},
	// The name of the connector is added to that of the SDK: there are two.
	"connector-sdk/invoke_async_by_a_named_connector": func() *http.Request {
		request := post(inCluster+"/async-function/nightly.openfaas-fn", bytes.NewReader(nil))
		request.Header.Set("User-Agent", "openfaas/cron-connector")
		request.Header.Set("X-Connector", "connector-sdk")
		request.Header.Add("X-Connector", "cron-connector")
		request.Header.Add("X-Topic", "cron-function")
		request.Header.Add("Content-Type", "text/plain")
		return request
	},
}

func main() {
	if len(os.Args) == 1 {
		names := []string{}
		for name := range requests {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Println(name)
		}
		return
	}
	if err := send(requests[os.Args[1]](), os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, os.Args[1], err)
		os.Exit(1)
	}
}

// send sends a request over a connection to an address and reads the answer.
func send(request *http.Request, address string) error {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

// sdk is the request that go-sdk makes to invoke a function.
func sdk(name, namespace, endpoint string, query url.Values, body io.Reader) *http.Request {
	if namespace == "" {
		namespace = "openfaas-fn"
	}
	path := endpoint + "/" + name + "." + namespace
	return post((&url.URL{Scheme: "http", Host: "127.0.0.1:8080", Path: path, RawQuery: query.Encode()}).String(), body)
}

func post(url string, body io.Reader) *http.Request {
	return must(http.NewRequest(http.MethodPost, url, body))
}

func listed(target string) *http.Request {
	request := must(http.NewRequest(http.MethodGet, inCluster+target, nil))
	request.SetBasicAuth("admin", "secret")
	return request
}

func must(request *http.Request, err error) *http.Request {
	if err != nil {
		panic(err)
	}
	return request
}

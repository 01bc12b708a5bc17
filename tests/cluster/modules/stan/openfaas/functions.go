package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
)

const (
	functionNamespace = "openfaas-fn"
	// What Kubernetes gives each pod that has an account.
	account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	api     = "https://kubernetes.default.svc"
)

// function is what faas-cli asks to be deployed.
type function struct {
	Service     string
	Image       string
	Annotations map[string]string
	Labels      map[string]string
}

type object = map[string]any

// deploy makes the Deployment and the Service of a function, or changes them.
func deploy(answer http.ResponseWriter, call *http.Request) {
	if call.Method != http.MethodPost && call.Method != http.MethodPut {
		answer.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	var wanted function
	err := json.NewDecoder(call.Body).Decode(&wanted)
	if err == nil && (wanted.Service == "" || wanted.Image == "") {
		err = fmt.Errorf("service and image are required")
	}
	if err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	deployment, service := objects(wanted)
	namespace := "/namespaces/" + functionNamespace
	err = apply("/apis/apps/v1"+namespace+"/deployments/"+wanted.Service, deployment)
	if err == nil {
		err = apply("/api/v1"+namespace+"/services/"+wanted.Service, service)
	}
	if err != nil {
		http.Error(answer, err.Error(), http.StatusInternalServerError)
		return
	}
	answer.WriteHeader(http.StatusAccepted)
}

// objects are those of a function, with labels and annotations where faas-netes has them. The image is that of
// function_image, since none can be pulled here.
func objects(wanted function) (deployment, service object) {
	selector := object{"faas_function": wanted.Service}
	labels := object{"faas_function": wanted.Service}
	for name, value := range wanted.Labels {
		labels[name] = value
	}
	annotations := object{"prometheus.io.scrape": "false"}
	for name, value := range wanted.Annotations {
		annotations[name] = value
	}
	container := object{
		"name":            wanted.Service,
		"image":           setting("function_image", wanted.Image),
		"imagePullPolicy": "IfNotPresent",
		"ports":           []object{{"name": "http", "containerPort": 8080, "protocol": "TCP"}},
		"readinessProbe":  object{"httpGet": object{"path": "/healthz", "port": 8080}, "periodSeconds": 1},
	}
	pod := object{"containers": []object{container}, "terminationGracePeriodSeconds": 1}
	deployment = object{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": object{"name": wanted.Service, "labels": selector, "annotations": annotations},
		"spec": object{
			"replicas": 1,
			"selector": object{"matchLabels": selector},
			"template": object{
				"metadata": object{"name": wanted.Service, "labels": labels, "annotations": annotations},
				"spec":     pod,
			},
		},
	}
	service = object{
		"apiVersion": "v1", "kind": "Service",
		"metadata": object{"name": wanted.Service, "annotations": annotations},
		"spec": object{
			"type": "ClusterIP", "selector": selector,
			"ports": []object{{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": 8080}},
		},
	}
	return deployment, service
}

// apply brings an object to the API server, under this pod's account.
func apply(path string, object object) error {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return err
	}
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	request, err := http.NewRequest(http.MethodPatch, api+path+"?fieldManager=faas-netes&force=true", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/apply-patch+yaml")
	request.Header.Set("Authorization", "Bearer "+string(token))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		text, _ := io.ReadAll(response.Body)
		return fmt.Errorf("%s: %s %s", path, response.Status, text)
	}
	return nil
}

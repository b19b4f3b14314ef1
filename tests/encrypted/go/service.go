// A server of HTTPS, which answers with the status that the path ends in; or a client, which asks for what stdin says (how many
// requests, how many at a time, TLS 1.x, HTTP/x, where), and prints how many had the right answer.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
)

func serve(port string) error {
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		status, err := strconv.Atoi(path.Base(request.URL.Path))
		if err != nil {
			status = http.StatusBadRequest
		}
		answer.WriteHeader(status)
		io.WriteString(answer, request.URL.RawQuery)
	})
	return http.ListenAndServeTLS(":"+port, "/data/tls.crt", "/data/tls.key", nil)
}

// What comes back is to be what was sent, and with the status that was asked for.
func ask(client *http.Client, base string, number int) bool {
	status, query := 200+number%2*204, fmt.Sprintf("n=%d", number)
	answer, err := client.Get(fmt.Sprintf("%s/%d?%s", base, status, query))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return false
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return err == nil && answer.StatusCode == status && string(body) == query
}

func main() {
	if len(os.Args) > 1 {
		panic(serve(os.Args[1]))
	}
	for {
		var requests, atOnce, version int
		var protocol, base string
		if _, err := fmt.Scan(&requests, &atOnce, &version, &protocol, &base); err != nil {
			return
		}
		config := &tls.Config{InsecureSkipVerify: true, MaxVersion: uint16(0x0300 + version + 1)}
		transport := &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: atOnce, MaxConnsPerHost: atOnce, ForceAttemptHTTP2: protocol == "2"}
		client := &http.Client{Transport: transport}
		var right atomic.Int64
		var workers sync.WaitGroup
		for worker := range atOnce {
			workers.Add(1)
			go func() {
				defer workers.Done()
				for number := worker; number < requests; number += atOnce {
					if ask(client, base, number) {
						right.Add(1)
					}
				}
			}()
		}
		workers.Wait()
		transport.CloseIdleConnections()
		fmt.Println(right.Load())
	}
}

// Command tool is what test containers run: a client and a server that need no
// C library.
//
//	tool get URL…        prints each answer, or "error: …"
//	tool serve ADDR TEXT answers TEXT over HTTP, and over UDP on the same port
//	tool udp ADDR        sends a datagram and prints the answer
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	switch os.Args[1] {
	case "get":
		for _, url := range os.Args[2:] {
			fmt.Println(get(url))
		}
	case "serve":
		serve(os.Args[2], os.Args[3])
	case "udp":
		fmt.Println(udp(os.Args[2]))
	}
}

func get(url string) string {
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(url)
	if err != nil {
		return "error: " + err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return strings.TrimSpace(string(body))
}

func serve(addr, text string) {
	go func() {
		conn, err := net.ListenPacket("udp", addr)
		if err != nil {
			panic(err)
		}
		buf := make([]byte, 1500)
		for {
			if _, from, err := conn.ReadFrom(buf); err == nil {
				_, _ = conn.WriteTo([]byte(text), from)
			}
		}
	}()
	err := http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/from" {
			text := r.RemoteAddr
			fmt.Fprintln(w, text)
			return
		}
		fmt.Fprintln(w, text)
	}))
	panic(err)
}

func udp(addr string) string {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return "error: " + err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := conn.Write([]byte("x")); err != nil {
		return "error: " + err.Error()
	}
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(buf[:n])
}

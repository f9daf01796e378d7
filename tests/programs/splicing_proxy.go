// A TCP proxy of the Go kind: io.Copy each way, which on Linux splices from socket to socket; LISTEN CONNECT.
package main

import (
	"io"
	"log"
	"net"
	"os"
)

func main() {
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go proxy(client.(*net.TCPConn), os.Args[2])
	}
}

func proxy(client *net.TCPConn, address string) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	server := connection.(*net.TCPConn)
	go pass(server, client)
	pass(client, server)
}

// pass passes the end of the stream on, too: the other direction may go on.
func pass(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}

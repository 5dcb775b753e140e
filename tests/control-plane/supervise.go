package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sort"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A stopped process gets this long to end by itself; then its whole group is killed.
const grace = 5 * time.Second

// order is one line on standard input.
type order struct {
	Do      string   `json:"do"`
	ID      uint64   `json:"id"`
	Rank    int      `json:"rank"`
	Command string   `json:"command"`
	Args    []string `json:"args"`
	Env     []string `json:"env"`
	Log     string   `json:"log"`
	Signal  string   `json:"signal"`
	Path    string   `json:"path"`
}

// report is one line on standard output: a process started (PID), could not start (Error), or ended.
type report struct {
	ID     uint64 `json:"id"`
	PID    int    `json:"pid,omitempty"`
	Error  string `json:"error,omitempty"`
	Ended  bool   `json:"ended,omitempty"`
	Code   int    `json:"code"`
	Signal int    `json:"signal,omitempty"`
}

type child struct {
	id    uint64
	rank  int
	pid   int
	ended chan struct{}
}

type supervisor struct {
	mutex    sync.Mutex
	children map[uint64]*child
	reports  *json.Encoder
	remove   []string
	keep     bool
}

var signals = map[string]syscall.Signal{
	"CONT": syscall.SIGCONT, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "TERM": syscall.SIGTERM,
}

// supervise starts and signals processes as standard input asks, and ends them all when standard input closes.
//
// A test that is killed cannot clean up, but the kernel closes its end of the pipe: that is the one event which every
// way of dying has in common. Higher ranks end first, so that no API server outlives its etcd.
func supervise() {
	// The kernel ties the death signal of a child to the thread that started it, so one thread starts them all.
	runtime.LockOSThread()
	// Reports have no reader once the test is dead, and the work left to do then matters most.
	signal.Ignore(syscall.SIGPIPE)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	s := &supervisor{children: map[uint64]*child{}, reports: json.NewEncoder(os.Stdout)}
	orders := make(chan order)
	go read(orders)
	for {
		select {
		case <-stop:
			s.end()
			return
		case next, open := <-orders:
			if !open {
				s.end()
				return
			}
			s.obey(next)
		}
	}
}

func read(orders chan<- order) {
	defer close(orders)
	decoder := json.NewDecoder(os.Stdin)
	for {
		var next order
		if err := decoder.Decode(&next); err != nil {
			if !errors.Is(err, io.EOF) {
				fmt.Fprintf(os.Stderr, "supervise: reading orders: %v\n", err)
			}
			return
		}
		orders <- next
	}
}

func (s *supervisor) obey(next order) {
	switch next.Do {
	case "start":
		if err := s.start(next); err != nil {
			s.report(report{ID: next.ID, Error: err.Error()})
		}
	case "signal":
		s.mutex.Lock()
		defer s.mutex.Unlock()
		// A child in the map is not reaped yet, so its number cannot belong to anybody else.
		if target, alive := s.children[next.ID]; alive {
			_ = syscall.Kill(target.pid, signals[next.Signal])
		}
	case "remove":
		s.remove = append(s.remove, next.Path)
	case "keep":
		s.keep = true
	default:
		fmt.Fprintf(os.Stderr, "supervise: unknown order %q\n", next.Do)
	}
}

func (s *supervisor) start(next order) error {
	log, err := os.OpenFile(next.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	command := exec.Command(next.Command, next.Args...)
	command.Env = next.Env
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	s.mutex.Lock()
	defer s.mutex.Unlock()
	if err := command.Start(); err != nil {
		return err
	}
	started := &child{id: next.ID, rank: next.Rank, pid: command.Process.Pid, ended: make(chan struct{})}
	s.children[next.ID] = started
	_ = s.reports.Encode(report{ID: next.ID, PID: started.pid})
	go s.wait(started)
	return nil
}

func (s *supervisor) wait(c *child) {
	// Look without reaping first: signals are sent by number, and only an unreaped number is surely ours.
	for {
		err := unix.Waitid(unix.P_PID, c.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	_ = syscall.Kill(-c.pid, syscall.SIGKILL)
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(c.pid, &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	delete(s.children, c.id)
	close(c.ended)
	ended := report{ID: c.id, Ended: true, Code: -1}
	if status.Signaled() {
		ended.Signal = int(status.Signal())
	} else {
		ended.Code = status.ExitStatus()
	}
	_ = s.reports.Encode(ended)
}

func (s *supervisor) report(line report) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	_ = s.reports.Encode(line)
}

func (s *supervisor) end() {
	for _, group := range s.byRank() {
		deadline := time.After(grace)
		for _, c := range group {
			s.signalGroup(c, syscall.SIGTERM)
		}
		for _, c := range group {
			select {
			case <-c.ended:
			case <-deadline:
				deadline = time.After(0)
				s.signalGroup(c, syscall.SIGKILL)
				<-c.ended
			}
		}
	}
	if s.keep {
		return
	}
	for _, path := range s.remove {
		_ = os.RemoveAll(path)
	}
}

func (s *supervisor) signalGroup(c *child, number syscall.Signal) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, alive := s.children[c.id]; alive {
		_ = syscall.Kill(-c.pid, number)
		// A stopped process acts on its end only when it runs again.
		_ = syscall.Kill(-c.pid, syscall.SIGCONT)
	}
}

// byRank returns the living children, the ones that must end first in front.
func (s *supervisor) byRank() [][]*child {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	groups := map[int][]*child{}
	for _, c := range s.children {
		groups[c.rank] = append(groups[c.rank], c)
	}
	ranks := make([]int, 0, len(groups))
	for rank := range groups {
		ranks = append(ranks, rank)
	}
	sort.Sort(sort.Reverse(sort.IntSlice(ranks)))
	ordered := make([][]*child, 0, len(ranks))
	for _, rank := range ranks {
		ordered = append(ordered, groups[rank])
	}
	return ordered
}

/* A load generator that costs little: fixed request bytes over N kept connections, each one request at a time.
 *
 * rawload HOST PORT CONNECTIONS SECONDS < request
 * Prints a line, "answers seconds", and behind it the latency of each answer in nanoseconds, 4 bytes each.
 * An answer that is not "HTTP/1.1 200" with a Content-Length ends it with a message and status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 1 << 20, REQUEST = 64 << 20 };

struct peer { int fd, stuck; size_t sent, have, need; uint64_t begun; char *answer; };

static char *request;
static size_t length;
static uint32_t *taken;
static size_t answers, room;

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void stop(const char *why, const char *what) {
  fprintf(stderr, "%s: %.200s\n", why, what);
  exit(1);
}

static void push(struct peer *p, int queue) {
  while (p->sent < length) {
    ssize_t count = send(p->fd, request + p->sent, length - p->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) stop("cannot send", strerror(errno));
    p->sent += (size_t)count;
  }
  int stuck = p->sent < length;
  if (stuck != p->stuck) {
    struct epoll_event e = {.events = EPOLLIN | (stuck ? EPOLLOUT : 0), .data.ptr = p};
    epoll_ctl(queue, EPOLL_CTL_MOD, p->fd, &e);
    p->stuck = stuck;
  }
}

static void begin(struct peer *p, int queue) {
  p->sent = p->have = p->need = 0;
  p->begun = now();
  push(p, queue);
}

/* Bytes of head and body together, once the head is whole; 0 before. */
static size_t whole(struct peer *p) {
  p->answer[p->have] = 0;
  char *end = strstr(p->answer, "\r\n\r\n");
  if (!end) return 0;
  if (strncmp(p->answer, "HTTP/1.1 200", 12)) stop("not answered with 200", p->answer);
  char *found = strcasestr(p->answer, "\r\ncontent-length:");
  if (!found || found > end) stop("an answer without Content-Length", p->answer);
  return (size_t)(end + 4 - p->answer) + strtoul(found + 17, NULL, 10);
}

/* 1 when the answer is whole. The head must fit the buffer; what of the body does not is read and dropped. */
static int pull(struct peer *p) {
  size_t at = p->need && p->have >= ANSWER / 2 ? ANSWER / 2 : p->have;
  ssize_t count = recv(p->fd, p->answer + at, ANSWER - 1 - at, MSG_DONTWAIT);
  if (count < 0 && errno == EAGAIN) return 0;
  if (count <= 0) stop("the connection ended", count ? strerror(errno) : "closed by the server");
  p->have += (size_t)count;
  if (!p->need) p->need = whole(p);
  if (p->need && p->have > p->need) stop("more came than was announced", p->answer);
  return p->need && p->have == p->need;
}

static int dial(const char *host, const char *port) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  if (getaddrinfo(host, port, &hints, &found)) stop("no such host", host);
  int fd = socket(found->ai_family, SOCK_STREAM, 0), one = 1;
  if (connect(fd, found->ai_addr, found->ai_addrlen)) stop("cannot connect", strerror(errno));
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  freeaddrinfo(found);
  return fd;
}

static void note(uint64_t ns) {
  if (answers == room) taken = realloc(taken, (room = room ? 2 * room : 1 << 16) * sizeof *taken);
  if (!taken) stop("out of memory", "");
  taken[answers++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

int main(int argc, char **argv) {
  if (argc != 5) stop("usage", "rawload HOST PORT CONNECTIONS SECONDS < request");
  int count = atoi(argv[3]), queue = epoll_create1(0);
  request = malloc(REQUEST);
  length = fread(request, 1, REQUEST, stdin);
  struct peer *peers = calloc((size_t)count, sizeof *peers);
  for (int i = 0; i < count; i++) {
    struct peer *p = peers + i;
    p->fd = dial(argv[1], argv[2]);
    p->answer = malloc(ANSWER);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = p};
    epoll_ctl(queue, EPOLL_CTL_ADD, p->fd, &e);
  }
  uint64_t started = now(), end = started + (uint64_t)(atof(argv[4]) * 1e9), last = started;
  for (int i = 0; i < count; i++) begin(peers + i, queue);
  int running = count;
  while (running) {
    struct epoll_event events[256];
    int ready = epoll_wait(queue, events, 256, 30000);
    if (ready == 0) stop("no answer within 30 s", "");
    for (int i = 0; i < ready; i++) {
      struct peer *p = events[i].data.ptr;
      if (events[i].events & EPOLLOUT) push(p, queue);
      if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) || !pull(p)) continue;
      last = now();
      note(last - p->begun);
      if (last < end) begin(p, queue);
      else running--;
    }
  }
  printf("%zu %.9f\n", answers, (double)(last - started) / 1e9);
  fwrite(taken, sizeof *taken, answers, stdout);
  return 0;
}

/* A workload for tests: an HTTP server on port 8080 that answers every request with "hello". */
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";

static void leave(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    struct sockaddr_in anywhere = {.sin_family = AF_INET, .sin_port = htons(8080)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), reuse = 1;
    char request[4096];

    signal(SIGTERM, leave); /* the first process of a container has no default for it */
    signal(SIGINT, leave);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
    if (bind(listener, (struct sockaddr *)&anywhere, sizeof anywhere) != 0 || listen(listener, 64) != 0)
        return EXIT_FAILURE;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0)
            continue;
        if (read(client, request, sizeof request) > 0 && write(client, answer, sizeof answer - 1) > 0)
            shutdown(client, SHUT_WR);
        close(client);
    }
}

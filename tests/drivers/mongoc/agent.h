#ifndef POOLSCOPE_AGENT_H
#define POOLSCOPE_AGENT_H

#include <mongoc/mongoc.h>
#include <pthread.h>

struct heartbeats {
   int64_t started, succeeded, failed;
};

/* A pool of clients, which is what other drivers call a client. It is kept when it was closed, with its counts. */
struct client {
   struct client *next;
   char *name;
   mongoc_client_pool_t *pool;
   bool is_streaming, is_closed;
   int64_t users;
   pthread_mutex_t mutex;
   int64_t sleeping;
   struct heartbeats heartbeats;
};

/* Does one thing, the number-th of its run. */
typedef bool (operation_t) (mongoc_client_t *client, const bson_t *args, int64_t number, bson_t *result,
                            bson_error_t *error);

/* agent.c */

/* Prints a line whole. */
void print_line (const bson_t *line);
/* Seconds since the epoch. */
double now (void);
void pause_for (int64_t milliseconds);
const char *text_of (const bson_t *object, const char *field, const char *otherwise);
int64_t number_of (const bson_t *object, const char *field, int64_t otherwise);

/* operations.c */

/* NULL where there is none of that name. */
operation_t *operation_named (const char *name);

/* reference.c */

/* Subscribes to the driver's events; it has none about connections of pools. */
void listen_to (struct client *client);
/* Commands called sleep that were sent. */
int64_t sleeping_of (struct client *client);
void add_heartbeats (struct client *client, struct heartbeats *sum);

#endif

/* libmongoc 1.23, with a pool of clients, behind the protocol of tests/drivers/README.md. */

#include "agent.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Failures of one run that are printed one by one; all of them are counted. */
#define FAILURES_PRINTED 300
/* Different failures of one run that are counted by their texts. */
#define ERRORS_MAX 32
#define ERROR_LENGTH 200

struct run {
   struct run *next;
   int64_t id;
   struct client *client;
   const char *name;
   operation_t *perform;
   bson_t args;
   int64_t count, concurrency, pause;
   double begin, seconds;
   pthread_mutex_t mutex;
   bool is_stopped;
   int64_t started, done, failed;
   char errors[ERRORS_MAX][ERROR_LENGTH];
   int64_t counts[ERRORS_MAX];
   char result[ERROR_LENGTH];
};

struct held {
   struct held *next;
   char *name;
   struct client *client;
   bson_t args;
   pthread_t thread;
   bool has_failed, is_over;
};

static pthread_mutex_t all_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct client *all_clients;
static struct run *all_runs;
static struct held *all_held;

double
now (void)
{
   struct timespec time;
   clock_gettime (CLOCK_REALTIME, &time);
   return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

void
pause_for (int64_t milliseconds)
{
   usleep ((useconds_t) milliseconds * 1000);
}

void
print_line (const bson_t *line)
{
   static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
   char *text = bson_as_relaxed_extended_json (line, NULL);
   pthread_mutex_lock (&mutex);
   puts (text);
   fflush (stdout);
   pthread_mutex_unlock (&mutex);
   bson_free (text);
}

const char *
text_of (const bson_t *object, const char *field, const char *otherwise)
{
   bson_iter_t at;
   bool is_there = bson_iter_init_find (&at, object, field) && BSON_ITER_HOLDS_UTF8 (&at);
   return is_there ? bson_iter_utf8 (&at, NULL) : otherwise;
}

int64_t
number_of (const bson_t *object, const char *field, int64_t otherwise)
{
   bson_iter_t at;
   bool is_there = bson_iter_init_find (&at, object, field) && BSON_ITER_HOLDS_NUMBER (&at);
   return is_there ? bson_iter_as_int64 (&at) : otherwise;
}

static bool
is_true (const bson_t *object, const char *field)
{
   bson_iter_t at;
   return bson_iter_init_find (&at, object, field) && bson_iter_as_bool (&at);
}

/* A copy of a document inside of another one, or an empty one; to be destroyed. */
static void
copy_inner (const bson_t *object, const char *field, bson_t *inner)
{
   bson_iter_t at;
   const uint8_t *data;
   uint32_t length;
   bson_t view;
   if (bson_iter_init_find (&at, object, field) && BSON_ITER_HOLDS_DOCUMENT (&at)) {
      bson_iter_document (&at, &length, &data);
      if (bson_init_static (&view, data, length)) {
         bson_copy_to (&view, inner);
         return;
      }
   }
   bson_init (inner);
}

static bool
refuse (bson_error_t *error, const char *format, ...)
{
   va_list arguments;
   va_start (arguments, format);
   error->domain = 0;
   vsnprintf (error->message, sizeof error->message, format, arguments);
   va_end (arguments);
   return false;
}

/* The newest client of a name that is not closed, held until it is let go; NULL where there is none. */
static struct client *
take_client (const char *name, bson_error_t *error)
{
   struct client *client;
   pthread_mutex_lock (&all_mutex);
   for (client = all_clients; client; client = client->next) {
      if (!client->is_closed && strcmp (client->name, name) == 0) {
         client->users++;
         break;
      }
   }
   pthread_mutex_unlock (&all_mutex);
   if (!client) {
      refuse (error, "no client is called %s", name);
   }
   return client;
}

static void
let_client_go (struct client *client)
{
   pthread_mutex_lock (&all_mutex);
   client->users--;
   pthread_mutex_unlock (&all_mutex);
}

/* Does an operation with a connection of the pool. */
static bool
perform (struct client *client, operation_t *operation, const bson_t *args, int64_t number, bson_t *result,
         bson_error_t *error)
{
   bool is_done;
   mongoc_client_t *one;
   pthread_mutex_lock (&all_mutex);
   bool is_closed = client->is_closed;
   if (!is_closed) {
      client->users++;
   }
   pthread_mutex_unlock (&all_mutex);
   if (is_closed) {
      return refuse (error, "the client is closed");
   }
   one = mongoc_client_pool_pop (client->pool);
   is_done = operation (one, args, number, result, error);
   mongoc_client_pool_push (client->pool, one);
   let_client_go (client);
   return is_done;
}

static bool
do_open (const bson_t *request, bson_t *answer, bson_error_t *error)
{
   struct client *client;
   mongoc_uri_t *uri = mongoc_uri_new_with_error (text_of (request, "uri", ""), error);
   (void) answer;
   if (!uri) {
      return false;
   }
   client = calloc (1, sizeof *client);
   client->name = strdup (text_of (request, "name", ""));
   client->is_streaming = is_true (request, "events");
   pthread_mutex_init (&client->mutex, NULL);
   client->pool = mongoc_client_pool_new_with_error (uri, error);
   mongoc_uri_destroy (uri);
   if (!client->pool) {
      free (client->name);
      free (client);
      return false;
   }
   mongoc_client_pool_set_error_api (client->pool, MONGOC_ERROR_API_VERSION_2);
   listen_to (client);
   pthread_mutex_lock (&all_mutex);
   client->next = all_clients;
   all_clients = client;
   pthread_mutex_unlock (&all_mutex);
   return true;
}

static void
add_failure (struct run *run, const bson_error_t *error)
{
   char text[ERROR_LENGTH];
   int at;
   bool is_printed;
   snprintf (text, sizeof text, "%u: %.180s", error->code, error->message);
   pthread_mutex_lock (&run->mutex);
   is_printed = ++run->failed <= FAILURES_PRINTED;
   for (at = 0; at < ERRORS_MAX - 1 && run->counts[at] > 0 && strcmp (run->errors[at], text) != 0; at++) {
   }
   memcpy (run->errors[at], text, sizeof text);
   run->counts[at]++;
   pthread_mutex_unlock (&run->mutex);
   if (is_printed) {
      bson_t *line = BCON_NEW ("event", "operation_failed", "name", BCON_UTF8 (run->name), "at",
                               BCON_DOUBLE (now ()), "error", BCON_UTF8 (text));
      print_line (line);
      bson_destroy (line);
   }
}

/* The number of the next operation; 0 where there is to be none. */
static int64_t
next_of (struct run *run)
{
   int64_t number = 0;
   pthread_mutex_lock (&run->mutex);
   bool is_over = run->seconds > 0 ? now () - run->begin >= run->seconds : run->started >= run->count;
   if (!is_over && !run->is_stopped) {
      number = ++run->started;
   }
   pthread_mutex_unlock (&run->mutex);
   return number;
}

static void *
work (void *argument)
{
   struct run *run = argument;
   int64_t number;
   while ((number = next_of (run)) > 0) {
      bson_t result = BSON_INITIALIZER;
      bson_error_t error = {0};
      if (number > run->concurrency) {
         pause_for (run->pause);
      }
      if (perform (run->client, run->perform, &run->args, number, &result, &error)) {
         char *text = bson_as_relaxed_extended_json (&result, NULL);
         pthread_mutex_lock (&run->mutex);
         run->done++;
         snprintf (run->result, sizeof run->result, "%s", text);
         pthread_mutex_unlock (&run->mutex);
         bson_free (text);
      } else {
         add_failure (run, &error);
      }
      bson_destroy (&result);
   }
   return NULL;
}

static void
answer_of (struct run *run, bson_t *answer)
{
   bson_t errors, result;
   bson_error_t error;
   BSON_APPEND_INT64 (answer, "done", run->done);
   BSON_APPEND_INT64 (answer, "failed", run->failed);
   BSON_APPEND_DOCUMENT_BEGIN (answer, "errors", &errors);
   for (int at = 0; at < ERRORS_MAX && run->counts[at] > 0; at++) {
      BSON_APPEND_INT64 (&errors, run->errors[at], run->counts[at]);
   }
   bson_append_document_end (answer, &errors);
   BSON_APPEND_DOUBLE (answer, "seconds", now () - run->begin);
   if (run->done > 0 && bson_init_from_json (&result, run->result, -1, &error)) {
      BSON_APPEND_DOCUMENT (answer, "result", &result);
      bson_destroy (&result);
   } else {
      BSON_APPEND_NULL (answer, "result");
   }
}

static bool
do_run (const bson_t *request, bson_t *answer, bson_error_t *error)
{
   struct run run = {0};
   struct run **link;
   bson_iter_t at;
   run.id = number_of (request, "id", -1);
   run.name = text_of (request, "name", "");
   run.perform = operation_named (text_of (request, "operation", ""));
   if (!run.perform) {
      return refuse (error, "%s is not supported by this driver", text_of (request, "operation", ""));
   }
   run.client = take_client (run.name, error);
   if (!run.client) {
      return false;
   }
   /* The operations hold it each for themselves: a client may be closed under a run. */
   let_client_go (run.client);
   copy_inner (request, "args", &run.args);
   run.count = number_of (request, "count", 1);
   run.concurrency = number_of (request, "concurrency", 1);
   run.pause = number_of (request, "pause", 0);
   if (bson_iter_init_find (&at, request, "seconds")) {
      run.seconds = bson_iter_as_double (&at);
   }
   run.begin = now ();
   pthread_mutex_init (&run.mutex, NULL);
   pthread_mutex_lock (&all_mutex);
   run.next = all_runs;
   all_runs = &run;
   pthread_mutex_unlock (&all_mutex);

   pthread_t *workers = calloc ((size_t) run.concurrency, sizeof *workers);
   for (int64_t worker = 0; worker < run.concurrency; worker++) {
      pthread_create (&workers[worker], NULL, work, &run);
   }
   for (int64_t worker = 0; worker < run.concurrency; worker++) {
      pthread_join (workers[worker], NULL);
   }
   free (workers);

   pthread_mutex_lock (&all_mutex);
   for (link = &all_runs; *link != &run; link = &(*link)->next) {
   }
   *link = run.next;
   pthread_mutex_unlock (&all_mutex);
   answer_of (&run, answer);
   bson_destroy (&run.args);
   pthread_mutex_destroy (&run.mutex);
   return true;
}

static bool
do_stop (const bson_t *request, bson_t *answer, bson_error_t *error)
{
   (void) answer;
   (void) error;
   pthread_mutex_lock (&all_mutex);
   for (struct run *run = all_runs; run; run = run->next) {
      if (run->id == number_of (request, "run", -2)) {
         pthread_mutex_lock (&run->mutex);
         run->is_stopped = true;
         pthread_mutex_unlock (&run->mutex);
      }
   }
   pthread_mutex_unlock (&all_mutex);
   return true;
}

static void
hold_comment (char *text, size_t length)
{
   snprintf (text, length, "poolscope-hold-%d", (int) getpid ());
}

static void *
stay (void *argument)
{
   struct held *held = argument;
   bson_t result = BSON_INITIALIZER;
   bson_error_t error = {0};
   bool is_done = perform (held->client, operation_named ("sleep"), &held->args, 0, &result, &error);
   bson_destroy (&result);
   pthread_mutex_lock (&all_mutex);
   held->has_failed = !is_done;
   held->is_over = true;
   pthread_mutex_unlock (&all_mutex);
   return NULL;
}

static bool
do_hold (const bson_t *request, bson_t *answer, bson_error_t *error)
{
   const char *name = text_of (request, "name", "");
   int64_t concurrency = number_of (request, "concurrency", 1);
   bool has_failed = false;
   char comment[64];
   struct client *client = take_client (name, error);
   (void) answer;
   if (!client) {
      return false;
   }
   hold_comment (comment, sizeof comment);
   int64_t wanted = sleeping_of (client) + concurrency;
   for (int64_t number = 0; number < concurrency; number++) {
      struct held *held = calloc (1, sizeof *held);
      held->name = strdup (name);
      held->client = client;
      bson_init (&held->args);
      BSON_APPEND_INT64 (&held->args, "milliseconds", number_of (request, "milliseconds", 600000));
      BSON_APPEND_UTF8 (&held->args, "comment", comment);
      pthread_mutex_lock (&all_mutex);
      held->next = all_held;
      all_held = held;
      pthread_mutex_unlock (&all_mutex);
      pthread_create (&held->thread, NULL, stay, held);
   }
   while (sleeping_of (client) < wanted && !has_failed) {
      pause_for (5);
      pthread_mutex_lock (&all_mutex);
      for (struct held *held = all_held; held; held = held->next) {
         has_failed |= held->has_failed;
      }
      pthread_mutex_unlock (&all_mutex);
   }
   let_client_go (client);
   return !has_failed || refuse (error, "an operation did not stay");
}

/* Ends the server's operations that this process holds. */
static bool
kill_held (mongoc_client_t *killer, bson_error_t *error)
{
   char comment[64];
   bson_t reply;
   bson_iter_t at, each, opid;
   hold_comment (comment, sizeof comment);
   bson_t *query = BCON_NEW ("currentOp", BCON_BOOL (true), "command.comment", BCON_UTF8 (comment));
   bool is_done = mongoc_client_command_simple (killer, "admin", query, NULL, &reply, error);
   bson_destroy (query);
   if (is_done && bson_iter_init_find (&at, &reply, "inprog") && bson_iter_recurse (&at, &each)) {
      while (is_done && bson_iter_next (&each)) {
         if (bson_iter_recurse (&each, &opid) && bson_iter_find (&opid, "opid")) {
            bson_t *kill = BCON_NEW ("killOp", BCON_INT32 (1), "op", BCON_ITER (&opid));
            is_done = mongoc_client_command_simple (killer, "admin", kill, NULL, NULL, error);
            bson_destroy (kill);
         }
      }
   }
   bson_destroy (&reply);
   return is_done;
}

static bool
do_release (const bson_t *request, bson_t *answer, bson_error_t *error)
{
   const char *name = text_of (request, "name", "");
   const char *control = text_of (request, "control", NULL);
   mongoc_client_t *killer = NULL;
   struct held *mine = NULL, *held, **link;
   bool is_done = true, is_over = false;
   int64_t count = 0;
   pthread_mutex_lock (&all_mutex);
   for (link = &all_held; (held = *link);) {
      if (strcmp (held->name, name) == 0) {
         *link = held->next;
         held->next = mine;
         mine = held;
         count++;
      } else {
         link = &held->next;
      }
   }
   pthread_mutex_unlock (&all_mutex);
   if (control && count > 0) {
      killer = mongoc_client_new (control);
      is_done = killer || refuse (error, "no connection string: %s", control);
   }
   while (killer && is_done && !is_over) {
      is_done = kill_held (killer, error);
      pause_for (10);
      is_over = true;
      pthread_mutex_lock (&all_mutex);
      for (held = mine; held; held = held->next) {
         is_over &= held->is_over;
      }
      pthread_mutex_unlock (&all_mutex);
   }
   if (killer) {
      mongoc_client_destroy (killer);
   }
   while ((held = mine)) {
      mine = held->next;
      pthread_join (held->thread, NULL);
      bson_destroy (&held->args);
      free (held->name);
      free (held);
   }
   BSON_APPEND_INT64 (answer, "held", count);
   return is_done;
}

/* Closes all clients of a name when their operations are done: a pool must have its clients back before it ends. */
static bool
do_close (const bson_t *request, bson_t *answer, bson_error_t *error)
{
   const char *name = text_of (request, "name", "");
   (void) answer;
   (void) error;
   pthread_mutex_lock (&all_mutex);
   for (struct client *client = all_clients; client; client = client->next) {
      if (client->is_closed || strcmp (client->name, name) != 0) {
         continue;
      }
      client->is_closed = true;
      while (client->users > 0) {
         pthread_mutex_unlock (&all_mutex);
         pause_for (1);
         pthread_mutex_lock (&all_mutex);
      }
      pthread_mutex_unlock (&all_mutex);
      mongoc_client_pool_destroy (client->pool);
      pthread_mutex_lock (&all_mutex);
   }
   pthread_mutex_unlock (&all_mutex);
   return true;
}

static int64_t
count_clients (const char *name)
{
   int64_t count = 0;
   pthread_mutex_lock (&all_mutex);
   for (struct client *client = all_clients; client; client = client->next) {
      count += !client->is_closed && strcmp (client->name, name) == 0;
   }
   pthread_mutex_unlock (&all_mutex);
   return count;
}

static bool
do_per_request (const bson_t *request, bson_t *answer, bson_error_t *error)
{
   const char *name = text_of (request, "name", "");
   operation_t *operation = operation_named (text_of (request, "operation", "find"));
   bool is_done = operation || refuse (error, "no such operation");
   bson_t args;
   copy_inner (request, "args", &args);
   for (int64_t number = 0; is_done && number < number_of (request, "count", 1); number++) {
      struct client *client;
      bson_t result = BSON_INITIALIZER;
      is_done = do_open (request, answer, error) && (client = take_client (name, error));
      if (is_done) {
         is_done = perform (client, operation, &args, number, &result, error);
         let_client_go (client);
      }
      if (is_done && is_true (request, "close")) {
         is_done = do_close (request, answer, error);
      }
      bson_destroy (&result);
      pause_for (number_of (request, "pause", 0));
   }
   bson_destroy (&args);
   BSON_APPEND_INT64 (answer, "clients", count_clients (name));
   return is_done;
}

static bool
do_stats (const bson_t *request, bson_t *answer, bson_error_t *error)
{
   const char *name = text_of (request, "name", "");
   struct heartbeats sum = {0, 0, 0};
   (void) error;
   pthread_mutex_lock (&all_mutex);
   for (struct client *client = all_clients; client; client = client->next) {
      if (strcmp (client->name, name) == 0) {
         add_heartbeats (client, &sum);
      }
   }
   pthread_mutex_unlock (&all_mutex);
   BSON_APPEND_UTF8 (answer, "source", "sdam");
   BSON_APPEND_INT64 (answer, "clients", count_clients (name));
   BCON_APPEND (answer, "heartbeats", "{", "started", BCON_INT64 (sum.started), "succeeded",
                BCON_INT64 (sum.succeeded), "failed", BCON_INT64 (sum.failed), "}");
   return true;
}

static const struct {
   const char *name;
   bool (*serve) (const bson_t *request, bson_t *answer, bson_error_t *error);
} SERVICES[] = {
   {"open", do_open},   {"run", do_run},     {"stop", do_stop},   {"hold", do_hold},
   {"release", do_release}, {"per_request", do_per_request}, {"close", do_close}, {"stats", do_stats},
};

static void *
serve (void *argument)
{
   bson_t *request = argument;
   const char *what = text_of (request, "do", "");
   bson_t answer = BSON_INITIALIZER;
   bson_error_t error = {0};
   bool is_done = strcmp (what, "exit") == 0, is_known = is_done;
   for (size_t at = 0; at < sizeof SERVICES / sizeof *SERVICES && !is_known; at++) {
      if (strcmp (SERVICES[at].name, what) == 0) {
         is_known = true;
         is_done = SERVICES[at].serve (request, &answer, &error);
      }
   }
   if (!is_known) {
      refuse (&error, "nothing is called %s", what);
   }
   BSON_APPEND_INT64 (&answer, "id", number_of (request, "id", -1));
   BSON_APPEND_BOOL (&answer, "ok", is_done);
   if (!is_done) {
      BSON_APPEND_UTF8 (&answer, "error", error.message);
   }
   print_line (&answer);
   bson_destroy (&answer);
   bson_destroy (request);
   return NULL;
}

int
main (void)
{
   char *line = NULL;
   size_t room = 0;
   mongoc_init ();
   /* It would log to where our answers go; what it would tell is in its events. */
   mongoc_log_set_handler (NULL, NULL);
   bson_t *started = BCON_NEW ("event", "started", "driver", "mongoc", "version",
                               BCON_UTF8 (mongoc_get_version ()), "pid", BCON_INT32 ((int) getpid ()));
   print_line (started);
   bson_destroy (started);
   while (getline (&line, &room, stdin) > 0) {
      bson_error_t error;
      pthread_t thread;
      bson_t *request = bson_new_from_json ((const uint8_t *) line, -1, &error);
      if (!request) {
         fprintf (stderr, "no request: %s\n", error.message);
         continue;
      }
      if (strcmp (text_of (request, "do", ""), "exit") == 0) {
         serve (request);
         break;
      }
      pthread_create (&thread, NULL, serve, request);
      pthread_detach (thread);
   }
   /* Without the driver's own goodbyes, as an application that is stopped. */
   _exit (0);
}

/* What the driver's events say about one client. */

#include "agent.h"

#include <string.h>

static void
command_started (const mongoc_apm_command_started_t *event)
{
   struct client *client = mongoc_apm_command_started_get_context (event);
   if (strcmp (mongoc_apm_command_started_get_command_name (event), "sleep") == 0) {
      pthread_mutex_lock (&client->mutex);
      client->sleeping++;
      pthread_mutex_unlock (&client->mutex);
   }
}

static void
heartbeat_started (const mongoc_apm_server_heartbeat_started_t *event)
{
   struct client *client = mongoc_apm_server_heartbeat_started_get_context (event);
   pthread_mutex_lock (&client->mutex);
   client->heartbeats.started++;
   pthread_mutex_unlock (&client->mutex);
}

static void
heartbeat_succeeded (const mongoc_apm_server_heartbeat_succeeded_t *event)
{
   struct client *client = mongoc_apm_server_heartbeat_succeeded_get_context (event);
   pthread_mutex_lock (&client->mutex);
   client->heartbeats.succeeded++;
   pthread_mutex_unlock (&client->mutex);
}

static void
heartbeat_failed (const mongoc_apm_server_heartbeat_failed_t *event)
{
   struct client *client = mongoc_apm_server_heartbeat_failed_get_context (event);
   bson_error_t error;
   pthread_mutex_lock (&client->mutex);
   client->heartbeats.failed++;
   pthread_mutex_unlock (&client->mutex);
   if (client->is_streaming) {
      mongoc_apm_server_heartbeat_failed_get_error (event, &error);
      bson_t *line = BCON_NEW ("event", "heartbeat_failed", "name", BCON_UTF8 (client->name), "at",
                               BCON_DOUBLE (now ()), "error", BCON_UTF8 (error.message));
      print_line (line);
      bson_destroy (line);
   }
}

void
listen_to (struct client *client)
{
   mongoc_apm_callbacks_t *callbacks = mongoc_apm_callbacks_new ();
   mongoc_apm_set_command_started_cb (callbacks, command_started);
   mongoc_apm_set_server_heartbeat_started_cb (callbacks, heartbeat_started);
   mongoc_apm_set_server_heartbeat_succeeded_cb (callbacks, heartbeat_succeeded);
   mongoc_apm_set_server_heartbeat_failed_cb (callbacks, heartbeat_failed);
   mongoc_client_pool_set_apm_callbacks (client->pool, callbacks, client);
   mongoc_apm_callbacks_destroy (callbacks);
}

int64_t
sleeping_of (struct client *client)
{
   pthread_mutex_lock (&client->mutex);
   int64_t sleeping = client->sleeping;
   pthread_mutex_unlock (&client->mutex);
   return sleeping;
}

void
add_heartbeats (struct client *client, struct heartbeats *sum)
{
   pthread_mutex_lock (&client->mutex);
   sum->started += client->heartbeats.started;
   sum->succeeded += client->heartbeats.succeeded;
   sum->failed += client->heartbeats.failed;
   pthread_mutex_unlock (&client->mutex);
}

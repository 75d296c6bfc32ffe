/* The operations that a run repeats. */

#include "agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The collection that the arguments name; to be destroyed. */
static mongoc_collection_t *
collection_of (mongoc_client_t *client, const bson_t *args)
{
   const char *database = text_of (args, "database", "poolscope");
   return mongoc_client_get_collection (client, database, text_of (args, "collection", "items"));
}

static bool
ping (mongoc_client_t *client, const bson_t *args, int64_t number, bson_t *result, bson_error_t *error)
{
   bson_t *command = BCON_NEW ("ping", BCON_INT32 (1));
   bool is_done = mongoc_client_command_simple (client, "admin", command, NULL, NULL, error);
   (void) args;
   (void) number;
   (void) result;
   bson_destroy (command);
   return is_done;
}

static bool
insert (mongoc_client_t *client, const bson_t *args, int64_t number, bson_t *result, bson_error_t *error)
{
   const char *prefix = text_of (args, "prefix", NULL);
   int64_t bytes = number_of (args, "bytes", 0);
   char id[256];
   if (prefix) {
      snprintf (id, sizeof id, "%s-%lld", prefix, (long long) number);
   } else {
      bson_oid_t made;
      bson_oid_init (&made, NULL);
      bson_oid_to_string (&made, id);
   }
   bson_t *document = BCON_NEW ("_id", BCON_UTF8 (id), "n", BCON_INT64 (number), "from", "mongoc");
   if (bytes > 0) {
      char *padding = malloc ((size_t) bytes);
      memset (padding, 'x', (size_t) bytes);
      bson_append_utf8 (document, "padding", -1, padding, (int) bytes);
      free (padding);
   }
   mongoc_collection_t *collection = collection_of (client, args);
   bool is_done = mongoc_collection_insert_one (collection, document, NULL, NULL, error);
   mongoc_collection_destroy (collection);
   bson_destroy (document);
   BSON_APPEND_INT32 (result, "inserted", 1);
   BSON_APPEND_UTF8 (result, "_id", id);
   return is_done;
}

static bool
find (mongoc_client_t *client, const bson_t *args, int64_t number, bson_t *result, bson_error_t *error)
{
   bson_t filter = BSON_INITIALIZER, how = BSON_INITIALIZER;
   const bson_t *found;
   int64_t documents = 0, bytes = 0;
   (void) number;
   if (number_of (args, "limit", 0) > 0) {
      BSON_APPEND_INT64 (&how, "limit", number_of (args, "limit", 0));
   }
   if (number_of (args, "batch", 0) > 0) {
      BSON_APPEND_INT64 (&how, "batchSize", number_of (args, "batch", 0));
   }
   mongoc_collection_t *collection = collection_of (client, args);
   mongoc_cursor_t *cursor = mongoc_collection_find_with_opts (collection, &filter, &how, NULL);
   while (mongoc_cursor_next (cursor, &found)) {
      documents++;
      bytes += (int64_t) strlen (text_of (found, "padding", ""));
   }
   bool is_done = !mongoc_cursor_error (cursor, error);
   mongoc_cursor_destroy (cursor);
   mongoc_collection_destroy (collection);
   bson_destroy (&filter);
   bson_destroy (&how);
   BSON_APPEND_INT64 (result, "documents", documents);
   BSON_APPEND_INT64 (result, "bytes", bytes);
   return is_done;
}

static bool
sleep_there (mongoc_client_t *client, const bson_t *args, int64_t number, bson_t *result, bson_error_t *error)
{
   int64_t milliseconds = number_of (args, "milliseconds", 1000);
   const char *comment = text_of (args, "comment", NULL);
   bson_t *command = BCON_NEW ("sleep", BCON_INT32 (1), "millis", BCON_INT64 (milliseconds), "lock", "none");
   (void) number;
   (void) result;
   if (comment) {
      BSON_APPEND_UTF8 (command, "comment", comment);
   }
   bool is_done = mongoc_client_command_simple (client, "admin", command, NULL, NULL, error);
   bson_destroy (command);
   return is_done;
}

operation_t *
operation_named (const char *name)
{
   static const struct {
      const char *name;
      operation_t *operation;
   } ALL[] = {{"ping", ping}, {"insert", insert}, {"find", find}, {"sleep", sleep_there}};
   for (size_t at = 0; at < sizeof ALL / sizeof *ALL; at++) {
      if (strcmp (ALL[at].name, name) == 0) {
         return ALL[at].operation;
      }
   }
   return NULL;
}

import com.mongodb.MongoClient;
import com.mongodb.client.FindIterable;
import com.mongodb.client.MongoCollection;
import java.util.Map;
import org.bson.Document;
import org.bson.types.ObjectId;

/** The operations that a run repeats. */
final class Operations {
    /** Does one thing, the number-th of its run. */
    interface Operation {
        Document perform(MongoClient client, Document args, int number);
    }

    private static final Map<String, Operation> ALL = Map.of(
        "ping", Operations::ping,
        "insert", Operations::insert,
        "find", Operations::find,
        "sleep", Operations::sleep);

    private Operations() {}

    static Operation named(String name) {
        Operation operation = ALL.get(name);
        if (operation == null) {
            throw new IllegalArgumentException(name + " is not supported by this driver");
        }
        return operation;
    }

    private static MongoCollection<Document> collectionOf(MongoClient client, Document args) {
        return client.getDatabase(args.get("database", "poolscope")).getCollection(args.get("collection", "items"));
    }

    private static Document ping(MongoClient client, Document args, int number) {
        client.getDatabase("admin").runCommand(new Document("ping", 1));
        return new Document();
    }

    private static Document insert(MongoClient client, Document args, int number) {
        String prefix = args.getString("prefix");
        Object id = prefix == null ? new ObjectId() : prefix + "-" + number;
        Document made = new Document("_id", id).append("n", number).append("from", "java");
        if (args.getInteger("bytes", 0) > 0) {
            made.append("padding", "x".repeat(args.getInteger("bytes")));
        }
        collectionOf(client, args).insertOne(made);
        return new Document("inserted", 1).append("_id", id.toString());
    }

    private static Document find(MongoClient client, Document args, int number) {
        FindIterable<Document> found = collectionOf(client, args).find()
            .limit(args.getInteger("limit", 0)).batchSize(args.getInteger("batch", 0));
        int documents = 0;
        int bytes = 0;
        for (Document document : found) {
            documents++;
            bytes += document.get("padding", "").length();
        }
        return new Document("documents", documents).append("bytes", bytes);
    }

    static Document sleep(MongoClient client, Document args, int number) {
        Document command = new Document("sleep", 1)
            .append("millis", args.getInteger("milliseconds", 1000)).append("lock", "none");
        if (args.containsKey("comment")) {
            command.append("comment", args.getString("comment"));
        }
        client.getDatabase("admin").runCommand(command);
        return new Document();
    }
}

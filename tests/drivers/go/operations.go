package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/writeconcern"
)

// operation does one thing, the number-th of its run.
type operation func(ctx context.Context, client *mongo.Client, args object, number int) (object, error)

var operations = map[string]operation{
	"ping":          ping,
	"insert":        insert,
	"insert_w0":     insertUnacknowledged,
	"insert_many":   insertMany,
	"find":          find,
	"bulk":          bulk,
	"aggregate":     aggregate,
	"crud":          crud,
	"types":         types,
	"transaction":   transaction,
	"sleep":         sleep,
	"drop":          drop,
	"create_capped": createCapped,
	"command":       command,
}

// collectionOf is the collection that the arguments name.
func collectionOf(client *mongo.Client, args object) *mongo.Collection {
	return client.Database(args.text("database", "poolscope")).Collection(args.text("collection", "items"))
}

func document(args object, number int) bson.D {
	made := bson.D{{Key: "n", Value: number}, {Key: "from", Value: "go"}}
	if prefix := args.text("prefix", ""); prefix != "" {
		made = append(bson.D{{Key: "_id", Value: fmt.Sprintf("%s-%d", prefix, number)}}, made...)
	}
	if bytes := args.number("bytes", 0); bytes > 0 {
		made = append(made, bson.E{Key: "padding", Value: strings.Repeat("x", bytes)})
	}
	return made
}

func ping(ctx context.Context, client *mongo.Client, _ object, _ int) (object, error) {
	return object{}, client.Database("admin").RunCommand(ctx, bson.D{{Key: "ping", Value: 1}}).Err()
}

func insert(ctx context.Context, client *mongo.Client, args object, number int) (object, error) {
	result, err := collectionOf(client, args).InsertOne(ctx, document(args, number))
	if err != nil {
		return nil, err
	}
	id := fmt.Sprint(result.InsertedID)
	if made, ok := result.InsertedID.(primitive.ObjectID); ok {
		id = made.Hex()
	}
	return object{"inserted": 1, "_id": id}, nil
}

func insertUnacknowledged(ctx context.Context, client *mongo.Client, args object, number int) (object, error) {
	unacknowledged := options.Collection().SetWriteConcern(writeconcern.New(writeconcern.W(0)))
	collection, err := collectionOf(client, args).Clone(unacknowledged)
	if err != nil {
		return nil, err
	}
	_, err = collection.InsertOne(ctx, document(args, number))
	if errors.Is(err, mongo.ErrUnacknowledgedWrite) {
		err = nil
	}
	return object{}, err
}

func insertMany(ctx context.Context, client *mongo.Client, args object, _ int) (object, error) {
	many := make([]interface{}, args.number("documents", 3))
	for index := range many {
		many[index] = document(object{"bytes": args["bytes"]}, index)
	}
	result, err := collectionOf(client, args).InsertMany(ctx, many)
	if err != nil {
		return nil, err
	}
	return object{"inserted": len(result.InsertedIDs)}, nil
}

func find(ctx context.Context, client *mongo.Client, args object, _ int) (object, error) {
	how := options.Find().SetLimit(int64(args.number("limit", 0)))
	if batch := args.number("batch", 0); batch > 0 {
		how.SetBatchSize(int32(batch))
	}
	cursor, err := collectionOf(client, args).Find(ctx, bson.D{}, how)
	if err != nil {
		return nil, err
	}
	defer cursor.Close(ctx)
	documents, bytes := 0, 0
	for cursor.Next(ctx) {
		documents++
		padding, _ := cursor.Current.Lookup("padding").StringValueOK()
		bytes += len(padding)
	}
	return object{"documents": documents, "bytes": bytes}, cursor.Err()
}

func bulk(ctx context.Context, client *mongo.Client, args object, number int) (object, error) {
	var writes []mongo.WriteModel
	for index := 0; index < args.number("documents", 100); index++ {
		made := bson.D{{Key: "bulk", Value: number}, {Key: "n", Value: index}}
		writes = append(writes, mongo.NewInsertOneModel().SetDocument(made))
	}
	mine := bson.D{{Key: "bulk", Value: number}}
	seen := bson.D{{Key: "$set", Value: bson.D{{Key: "seen", Value: true}}}}
	writes = append(writes, mongo.NewUpdateManyModel().SetFilter(mine).SetUpdate(seen))
	writes = append(writes, mongo.NewDeleteManyModel().SetFilter(mine))
	result, err := collectionOf(client, args).BulkWrite(ctx, writes)
	if err != nil {
		return nil, err
	}
	return object{
		"inserted": result.InsertedCount, "updated": result.ModifiedCount, "deleted": result.DeletedCount,
	}, nil
}

func aggregate(ctx context.Context, client *mongo.Client, args object, _ int) (object, error) {
	n := bson.D{{Key: "$mod", Value: bson.A{bson.D{{Key: "$ifNull", Value: bson.A{"$n", 0}}}, 7}}}
	group := bson.D{{Key: "$group", Value: bson.D{{Key: "_id", Value: n}}}}
	cursor, err := collectionOf(client, args).Aggregate(ctx, mongo.Pipeline{group})
	if err != nil {
		return nil, err
	}
	var groups []bson.Raw
	err = cursor.All(ctx, &groups)
	return object{"groups": len(groups)}, err
}

func crud(ctx context.Context, client *mongo.Client, args object, number int) (object, error) {
	collection := collectionOf(client, args)
	id := primitive.NewObjectID()
	mine := bson.D{{Key: "_id", Value: id}}
	var failure error
	check := func(is bool, what string, err error) {
		if failure == nil && err != nil {
			failure = fmt.Errorf("%s: %w", what, err)
		} else if failure == nil && !is {
			failure = fmt.Errorf("unexpected answer of %s", what)
		}
	}
	var found struct {
		N int `bson:"n"`
	}
	inserted, err := collection.InsertOne(ctx, bson.D{{Key: "_id", Value: id}, {Key: "n", Value: number}})
	check(inserted != nil && inserted.InsertedID == id, "insert", err)
	err = collection.FindOne(ctx, mine).Decode(&found)
	check(found.N == number, "find", err)
	updated, err := collection.UpdateOne(ctx, mine, bson.D{{Key: "$inc", Value: bson.D{{Key: "n", Value: 1}}}})
	check(updated != nil && updated.ModifiedCount == 1, "update", err)
	err = collection.FindOneAndReplace(ctx, mine, bson.D{{Key: "n", Value: -1}}).Decode(&found)
	check(found.N == number+1, "replace", err)
	count, err := collection.CountDocuments(ctx, append(mine, bson.E{Key: "n", Value: -1}))
	check(count == 1, "count", err)
	deleted, err := collection.DeleteOne(ctx, mine)
	check(deleted != nil && deleted.DeletedCount == 1, "delete", err)
	err = collection.FindOne(ctx, mine).Err()
	check(errors.Is(err, mongo.ErrNoDocuments), "the last find", nil)
	return object{"checked": 7}, failure
}

func types(ctx context.Context, client *mongo.Client, args object, _ int) (object, error) {
	bytes := make([]byte, 256)
	for index := range bytes {
		bytes[index] = byte(index)
	}
	decimal, err := primitive.ParseDecimal128("1.5E+10")
	if err != nil {
		return nil, err
	}
	values := bson.D{
		{Key: "double", Value: 1.5},
		{Key: "string", Value: "text with \u00e9 and \u4e2d"},
		{Key: "document", Value: bson.D{{Key: "a", Value: bson.D{{Key: "b", Value: int32(1)}}}}},
		{Key: "array", Value: bson.A{int32(1), "two", nil}},
		{Key: "binary", Value: primitive.Binary{Subtype: 128, Data: bytes}},
		{Key: "undefined", Value: primitive.Undefined{}},
		{Key: "object_id", Value: primitive.NewObjectID()},
		{Key: "boolean", Value: true},
		{Key: "date", Value: primitive.NewDateTimeFromTime(time.UnixMilli(1582979415123))},
		{Key: "null", Value: nil},
		{Key: "regex", Value: primitive.Regex{Pattern: "^a.*b$", Options: "ix"}},
		{Key: "reference", Value: primitive.DBPointer{DB: "items", Pointer: primitive.NewObjectID()}},
		{Key: "code", Value: primitive.JavaScript("function() { return 1; }")},
		{Key: "symbol", Value: primitive.Symbol("symbol")},
		{Key: "code_with_scope", Value: primitive.CodeWithScope{
			Code: "function() { return x; }", Scope: bson.D{{Key: "x", Value: int32(1)}},
		}},
		{Key: "int32", Value: int32(7)},
		{Key: "timestamp", Value: primitive.Timestamp{T: 1600000000, I: 2}},
		{Key: "int64", Value: int64(1) << 40},
		{Key: "decimal", Value: decimal},
		{Key: "min_key", Value: primitive.MinKey{}},
		{Key: "max_key", Value: primitive.MaxKey{}},
	}
	collection := collectionOf(client, args)
	inserted, err := collection.InsertOne(ctx, values)
	if err != nil {
		return nil, err
	}
	mine := bson.D{{Key: "_id", Value: inserted.InsertedID}}
	var found bson.D
	if err := collection.FindOne(ctx, mine).Decode(&found); err != nil {
		return nil, err
	}
	if _, err := collection.DeleteOne(ctx, mine); err != nil {
		return nil, err
	}
	return object{"equal": reflect.DeepEqual(found[1:], values), "types": len(values)}, nil
}

func transaction(ctx context.Context, client *mongo.Client, args object, number int) (object, error) {
	collection := collectionOf(client, args)
	err := client.UseSession(ctx, func(session mongo.SessionContext) error {
		if err := session.StartTransaction(); err != nil {
			return err
		}
		for n := 1; n <= 2; n++ {
			made := bson.D{{Key: "transaction", Value: number}, {Key: "n", Value: n}}
			if _, err := collection.InsertOne(session, made); err != nil {
				return err
			}
		}
		return session.CommitTransaction(session)
	})
	return object{"committed": true}, err
}

func sleep(ctx context.Context, client *mongo.Client, args object, _ int) (object, error) {
	made := bson.D{
		{Key: "sleep", Value: 1},
		{Key: "millis", Value: args.number("milliseconds", 1000)},
		{Key: "lock", Value: "none"},
	}
	if comment := args.text("comment", ""); comment != "" {
		made = append(made, bson.E{Key: "comment", Value: comment})
	}
	return object{}, client.Database("admin").RunCommand(ctx, made).Err()
}

func drop(ctx context.Context, client *mongo.Client, args object, _ int) (object, error) {
	return object{}, collectionOf(client, args).Drop(ctx)
}

func createCapped(ctx context.Context, client *mongo.Client, args object, _ int) (object, error) {
	collection := collectionOf(client, args)
	if err := collection.Drop(ctx); err != nil {
		return nil, err
	}
	capped := options.CreateCollection().SetCapped(true).SetSizeInBytes(1 << 20)
	if err := collection.Database().CreateCollection(ctx, collection.Name(), capped); err != nil {
		return nil, err
	}
	_, err := collection.InsertOne(ctx, bson.D{{Key: "first", Value: true}})
	return object{}, err
}

func command(ctx context.Context, client *mongo.Client, args object, _ int) (object, error) {
	text, err := marshal(args["command"])
	if err != nil {
		return nil, err
	}
	var made bson.D
	if err := bson.UnmarshalExtJSON(text, false, &made); err != nil {
		return nil, err
	}
	reply, err := client.Database(args.text("on", "admin")).RunCommand(ctx, made).DecodeBytes()
	if err != nil {
		return nil, err
	}
	printed, err := bson.MarshalExtJSON(reply, false, false)
	if err != nil {
		return nil, err
	}
	return parse(printed)
}

"""Text to batches: biographies, questions and strangers, span corruption, splits and training batches."""

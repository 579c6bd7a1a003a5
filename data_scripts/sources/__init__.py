"""Where people come from: one module for each kind of source, all of which yield `Person` objects."""

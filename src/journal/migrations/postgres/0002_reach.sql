-- What of the past was sent or is being sent, as JSON (`journal/reach.rs`). NULL: all that the rule covers.
ALTER TABLE checkpoint ADD COLUMN reach TEXT;

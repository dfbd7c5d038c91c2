-- What the mass-delete brake does, as JSON (`journal/brake.rs`). NULL: the link had none yet.
ALTER TABLE checkpoint ADD COLUMN brake TEXT;

"""From features and labels to models, scores, a winner and the verdict."""

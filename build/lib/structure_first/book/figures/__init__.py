"""The book's figures, drawing alone: a module of style, of what several chapters draw, and of each chapter's own."""

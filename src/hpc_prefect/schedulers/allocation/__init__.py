"""A held allocation as a scheduler: jobs reach its agent through files in a folder."""

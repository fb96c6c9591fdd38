"""The commands of `latprune`, a file each; `pruner.main` lists them. None imports torch before it is called."""

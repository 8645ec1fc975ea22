// The files here belong to the optimism module (see README.md). This file keeps
// the go command from taking them for packages of this repository.
module patches

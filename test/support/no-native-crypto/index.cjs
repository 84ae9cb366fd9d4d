// In the place of a package whose install script downloads a native library. The content-scanner client of the bot SDK needs none of it.
module.exports = {};

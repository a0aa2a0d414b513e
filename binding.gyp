# For tools that look for a binding.gyp. The build is CMake's: this runs the script that everything else runs. It is not part of the package,
# so that installing never builds.
{
  "targets": [
    {
      "target_name": "longcat",
      "type": "none",
      "actions": [
        {
          "action_name": "build_native",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["build/Release/longcat.node"],
          "action": ["node", "scripts/build-native.mjs"],
        },
      ],
    },
  ],
}

@echo off
rem Create a video of dreamed frames.  Usage: 3-create.bat [DREAMS [VIDEO]]
setlocal
set "DREAMS=%~1"
if not defined DREAMS set "DREAMS=Output"
set "VIDEO=%~2"
if not defined VIDEO set "VIDEO=Video.mp4"
python "%~dp0..\dreamer.py" -c 1 --input "%DREAMS%" --output "%VIDEO%"
exit /b %ERRORLEVEL%
